"""Categories of problems, by level and by what their names say that they compute. They overlap."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from kernel_env.schema import Problem

_ATTENTION = re.compile("attention|transformer|gpt", re.IGNORECASE)
_CONVOLUTION = re.compile("conv", re.IGNORECASE)
_MATMUL = re.compile("matmul|matrix_(?!scalar)|gemm|bmm|linear", re.IGNORECASE)
_REDUCTION = re.compile("norm|softmax|reduc|cumsum|cumprod|logsumexp|loss|mean|sum|argm|skewness|scan", re.IGNORECASE)


def _operator(problem: Problem) -> str:
    """What most of its time goes into: a convolution does not become a reduction by a mean at its end."""
    if _ATTENTION.search(problem.name):
        return "attention_block"
    if problem.level > 2:  # a whole model
        return ""
    if _CONVOLUTION.search(problem.name):
        return "convolution"
    if _MATMUL.search(problem.name):
        return "matmul"
    return "reduction_norm" if _REDUCTION.search(problem.name) else ""


CATEGORIES: Mapping[str, Callable[[Problem], bool]] = {
    "level1": lambda p: p.level == 1,
    "level2": lambda p: p.level == 2,
    "level3": lambda p: p.level == 3,
    "fusion": lambda p: p.level == 2,  # KernelBench's second level is operators in a row
    "matmul": lambda p: _operator(p) == "matmul",
    "convolution": lambda p: _operator(p) == "convolution",
    "reduction_norm": lambda p: _operator(p) == "reduction_norm",
    "attention_block": lambda p: _operator(p) == "attention_block",
}
