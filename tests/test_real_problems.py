"""The 200 real problems: each reference, given as its own candidate, is correct. A KernelBench checkout loads whole."""

from __future__ import annotations

import re

import pytest

from kernel_env.problems import load_problems
from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Problem, Status
from kernel_env.verifier import BlockingVerifier
from tests.conftest import JSONL

CONFIG = VerifyConfig(num_correct_trials=2, measure_performance=False, memory_limit_mb=20_000, torch_ops="unchecked")
SLOW = frozenset({
    "level1_problem1", "level1_problem5", "level1_problem6", "level1_problem7", "level1_problem8", "level1_problem9",
    "level1_problem10", "level1_problem12", "level1_problem13", "level1_problem14", "level1_problem15", "level1_problem16",
    "level1_problem17", "level1_problem33", "level1_problem34", "level1_problem35", "level1_problem36", "level1_problem37",
    "level1_problem40", "level1_problem54", "level1_problem60", "level1_problem75", "level2_problem20", "level2_problem49",
    "level2_problem74", "level2_problem89",
})  # fmt: skip
"""Keys whose two trials take more than about 4 s on 2 cores."""
EXCEPTIONS = {
    "level1_problem11": "an output of 6.4 GB, of which one process holds three at times",
    "level2_problem3": "activations of 4.3 GB, of which the three processes hold six at times",
    "level2_problem34": "activations of 4.3 GB, of which the three processes hold six at times",
}
"""Problems that a 24 GB machine cannot hold at full size (expected and actual output, inputs three times), and what they need."""

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


def _all(profile: str) -> dict[str, Problem]:
    return {p.key: p for p in load_problems("jsonl", JSONL, profile)} if JSONL.exists() else {}


AS_PLAYED, FULL = _all("cpu"), _all("full")
"""The profile that a machine without a GPU plays at shrinks 14 of the 200; `full` is the data as written."""
SHRUNK = [key for key, problem in AS_PLAYED.items() if problem.overrides]
absent = pytest.mark.skipif(not AS_PLAYED, reason=f"needs ../shared/data/{JSONL.name} beside the checkout")


def _sampled() -> list[object]:
    """Every tenth runs in the default suite; the others are for whoever has more time."""
    marks = {
        key: pytest.mark.slow if key in SLOW else pytest.mark.thorough for n, key in enumerate(AS_PLAYED) if n % 10 or key in SLOW
    }
    return [pytest.param(key, marks=marks.get(key, ())) for key in AS_PLAYED or ["absent"]]


@absent
@pytest.mark.parametrize("key", _sampled())
def test_a_reference_is_correct_as_its_own_candidate(verifier: BlockingVerifier, key: str) -> None:
    verdict = verifier.verify(AS_PLAYED[key], own_candidate(AS_PLAYED[key]), CONFIG, seed=11)
    assert verdict.status is Status.CORRECT, verdict.message


@absent
@pytest.mark.slow
@pytest.mark.parametrize("key", SHRUNK or ["absent"])
def test_the_large_ones_are_correct_at_full_size_too(verifier: BlockingVerifier, key: str) -> None:
    if key in EXCEPTIONS:
        pytest.skip(EXCEPTIONS[key])
    verdict = verifier.verify(FULL[key], own_candidate(FULL[key]), CONFIG, seed=11)
    assert verdict.status is Status.CORRECT, verdict.message


def test_few_exceptions_each_with_its_reason() -> None:
    assert len(EXCEPTIONS) <= 5 and all(EXCEPTIONS.values())
