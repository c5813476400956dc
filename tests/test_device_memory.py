"""How much memory problems need on a device, counted on tensors without contents."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from kernel_env.problems import load_problems
from kernel_env.problems.sizing import resize
from kernel_env.schema import Problem
from tests.device_memory import GPU24_BYTES, fitted, needed
from tests.test_problems import RL_DATA

SOURCE = """
import torch
import torch.nn as nn

N = 1 << 20
BATCH = 8


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(N // 4))

    def forward(self, x):
        {forward}


def get_inputs():
    return [torch.rand(BATCH, N // 4)]


def get_init_inputs():
    return []
"""
MIB = 1 << 20


@pytest.mark.parametrize(
    ("forward", "tensors"),
    [
        ("return x", 0),
        ("return x.view(-1)[3:]", 0),
        ("x.add_(1); return x", 0),
        ("return x + self.weight", 8),
        ("y = x + 1; return y + 1", 16),
        ("y = x + 1; y = y + 1; return y + 1", 16),
        ("y = x + 1; z = y + 1; return y + z", 24),
        ("return (x + 1)[:1].clone()", 9),
    ],
)
def test_what_is_alive_at_once_is_counted(forward: str, tensors: int) -> None:
    assert needed(SOURCE.replace("1 << 20", str(MIB)).format(forward=forward)) == (8 + 1 + tensors) * MIB


def test_the_batch_is_halved_first_until_it_fits() -> None:
    source = SOURCE.replace("1 << 20", str(MIB)).format(forward="return x + self.weight")
    assert fitted(source, 17 * MIB) == {}
    assert fitted(source, 16 * MIB) == {"BATCH": 4}
    assert fitted(source, 5 * MIB) == {"BATCH": 2}
    assert fitted(source, 2 * MIB) == {"BATCH": 1, "N": MIB // 2}
    assert needed(resize(source, {"BATCH": 1, "N": MIB // 2})) <= 2 * MIB


UNCOUNTED = {"level3_problem28", "level3_problem29", "level3_problem30"}
"""References that cannot be called on tensors without contents."""


def too_large(problems: Iterable[Problem]) -> list[str]:
    return [problem.key for problem in problems if needed(problem.source) > GPU24_BYTES]


@pytest.mark.thorough
@pytest.mark.skipif(not RL_DATA.exists(), reason="the RL data set is not beside this checkout")
def test_the_rl_data_set_fits_24_gb() -> None:
    assert too_large(load_problems("jsonl", RL_DATA, "gpu24")) == []


@pytest.mark.thorough
@pytest.mark.external
def test_kernelbench_fits_24_gb(checkout: Path) -> None:
    """Level 4 is whatever the downloaded models are. No entry is smaller than it need be by more than a half."""
    problems = load_problems("kernelbench", checkout, "gpu24")
    assert too_large(problem for problem in problems if problem.level < 4 and problem.key not in UNCOUNTED) == []
    written = {problem.key: problem for problem in load_problems("kernelbench", checkout)}
    resized = [problem for problem in problems if problem.overrides]
    assert {problem.key for problem in resized} == set(too_large(written[problem.key] for problem in resized))
    assert all(needed(problem.source) > GPU24_BYTES // 3 for problem in resized)
