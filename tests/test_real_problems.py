"""The 200 real problems: each reference, given as its own candidate, is correct. A KernelBench checkout loads whole."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from kernel_env.problems import load_problems
from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Problem, Status
from kernel_env.verifier import BlockingVerifier
from tests.conftest import JSONL

CONFIG = VerifyConfig(num_correct_trials=2, measure_performance=False, memory_limit_mb=12_000)
EXCEPTIONS: dict[str, str] = {}
"""Problems whose reference cannot be its own candidate here, and why."""
SLOW_S = 3.0
SLOW: frozenset[str] = frozenset()
"""Keys whose two trials take longer than `SLOW_S` on 2 cores."""

_MARK = '''
from torch.utils.cpp_extension import load_inline as _load_inline

ModelNew.extension = _load_inline(name="same", cpp_sources="""
#include <torch/extension.h>
torch::Tensor same(torch::Tensor x) { return x; }
""", functions=["same"])
'''


def own_candidate(problem: Problem) -> Candidate:
    """The reference under the candidate's name, with a small extension so that the static rules let it through."""
    return Candidate(re.sub(r"\bModel\b", "ModelNew", problem.source) + _MARK, "cpp")


def _keys() -> list[object]:
    if not JSONL.exists():
        return [pytest.param("absent", marks=pytest.mark.skip(reason=f"needs ../shared/data/{JSONL.name} beside the checkout"))]
    keys = [p.key for p in load_problems("jsonl", JSONL)]
    return [pytest.param(key, marks=pytest.mark.slow) if key in SLOW else key for key in keys]


@pytest.fixture(scope="session")
def problems() -> dict[str, Problem]:
    return {p.key: p for p in load_problems("jsonl", JSONL)}


@pytest.mark.parametrize("key", _keys())
def test_a_reference_is_correct_as_its_own_candidate(verifier: BlockingVerifier, problems: dict[str, Problem], key: str) -> None:
    if key in EXCEPTIONS:
        pytest.skip(EXCEPTIONS[key])
    verdict = verifier.verify(problems[key], own_candidate(problems[key]), CONFIG, seed=11)
    assert verdict.status is Status.CORRECT, verdict.message


def test_few_exceptions_each_with_its_reason() -> None:
    assert len(EXCEPTIONS) <= 5 and all(EXCEPTIONS.values())


@pytest.mark.external
def test_a_checkout_of_kernelbench_loads_all_270_problems() -> None:
    root = os.environ.get("KERNELBENCH_ROOT")
    if not root:
        pytest.skip("set KERNELBENCH_ROOT to a checkout of KernelBench")
    loaded = load_problems("kernelbench", Path(root))
    assert [sum(p.level == level for p in loaded) for level in (1, 2, 3, 4)] == [100, 100, 50, 20]
