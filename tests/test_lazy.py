"""Five ways to leave the work undone, on the 200 real problems: none is correct where the output says anything at all.

Each candidate asks the reference for the right answer first, so that it leaves out as little as possible: the constant is the
mean of the right output, the second half is filled with the mean of the first.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from kernel_env.schema import Candidate, Problem, Status
from kernel_env.verifier import BlockingVerifier
from tests.test_real_problems import AS_PLAYED, CONFIG, SLOW, absent, own_candidate

LAZY = {
    "zeros": "torch.zeros_like(right)",
    "mean": "_filled(right, right)",
    "identity": "_shaped(inputs[0], right)",
    "stale": "self.__dict__.setdefault('first', right.clone()).clone()",
    "half": "_half(right) if right.numel() > 1 else super().forward(*(_first_half(x) for x in inputs))",
}
"""What forward returns instead of `right`. Of a single number, a constant has two digits, and half is half of the batch."""

_HELPERS = """

def _filled(like, of):
    mean = of.double().mean().item()
    return torch.full_like(like, mean if like.numel() > 1 else float(f"{mean:.2g}"))


def _shaped(x, like):
    times = like.numel() // x.numel() + 1
    return x.detach().reshape(-1).repeat(times)[: like.numel()].view(like.shape).to(like.dtype)


def _half(right):
    done = right.clone().reshape(-1)
    here, rest = done[: done.numel() // 2], done[done.numel() // 2 :]
    rest.copy_(_filled(rest, here))
    return done.view(right.shape)


def _first_half(x):
    return x[: len(x) // 2] if torch.is_tensor(x) and x.dim() else x


class ModelNew(_Correct):
    def forward(self, *inputs):
        right = super().forward(*inputs)
        return {lazy}
"""

QUICK = replace(CONFIG, num_correct_trials=3)
SAMPLE = frozenset(key for n, key in enumerate(AS_PLAYED) if n % 20 == 3 and key not in SLOW)


def lazy_candidate(problem: Problem, lazy: str) -> Candidate:
    correct = re.sub(r"\bModelNew\b", "_Correct", own_candidate(problem).code)
    return Candidate(correct + _HELPERS.replace("{lazy}", LAZY[lazy]), "cpp")


@absent
@pytest.mark.parametrize("lazy", LAZY)
@pytest.mark.parametrize(
    "key", [pytest.param(key, marks=() if key in SAMPLE else pytest.mark.slow) for key in AS_PLAYED or ["absent"]]
)
def test_work_left_undone_is_wrong(verifier: BlockingVerifier, key: str, lazy: str) -> None:
    verdict = verifier.verify(AS_PLAYED[key], lazy_candidate(AS_PLAYED[key], lazy), QUICK, seed=11)
    assert verdict.status is Status.WRONG_OUTPUT or verdict.degenerate, (verdict.status, verdict.message)
