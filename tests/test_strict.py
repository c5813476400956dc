"""What `strict` stops that the plain presets let through, each beside the honest kernel that it must not stop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernel_env.errors import ProblemError
from kernel_env.schema import Problem, Status
from tests.conftest import QUICK, REFERENCE, Judge, python_candidate

STRICT = replace(QUICK, measure_performance=False)
PLAIN = replace(STRICT, tolerance="kernelbench")


def reference(forward: str, *, inputs: str = "[torch.randn(ROWS, 8)]", init: str = "self.scale = scale") -> Problem:
    source = REFERENCE.replace("return torch.relu(x) * self.scale", forward).replace("[torch.randn(ROWS, 8)]", inputs)
    return Problem(1, 1, "Made", source.replace("self.scale = scale", init), origin="test")


SOFTMAX = reference("return torch.softmax(x, dim=-1)", inputs="[torch.rand(ROWS, 20000)]")
"""Outputs of 5e-5: plain 1e-4 forgives anything there."""


@pytest.mark.parametrize("forward", ["return torch.zeros_like(x)", "return torch.full_like(x, 5e-5)", "return x * 5e-5"])
def test_small_outputs_have_to_be_right_too(judge: Judge, forward: str) -> None:
    cheat = python_candidate(forward)
    assert judge(cheat, of=SOFTMAX, config=PLAIN).status is Status.CORRECT, "this is what the plain preset forgives"
    verdict = judge(cheat, of=SOFTMAX, config=STRICT)
    assert (verdict.status, verdict.category, verdict.degenerate) == (Status.WRONG_OUTPUT, "values", False)


@pytest.mark.parametrize(
    "forward",
    [
        "return torch.softmax(x, dim=-1)",
        "e = x.exp(); return e / e.sum(-1, keepdim=True)",
        "return torch.exp(x - x.exp().sum(-1, True).log())",
    ],
)
def test_honest_ways_to_compute_them_pass(judge: Judge, forward: str) -> None:
    assert judge(python_candidate(forward), of=SOFTMAX, config=STRICT).status is Status.CORRECT


def test_the_answer_of_another_draw_does_not_pass(judge: Judge) -> None:
    """Sums of many positive numbers hardly differ from draw to draw."""
    mean = reference("return x.mean(dim=1)", inputs="[torch.rand(ROWS, 200000)]")
    stale = python_candidate("self.kept = getattr(self, 'kept', None); y = x.mean(dim=1)\n"
                             "        if self.kept is None: self.kept = y.clone()\n        return self.kept.clone()")  # fmt: skip
    loose = replace(STRICT, tolerance="tritonforge")
    assert judge(stale, of=mean, config=loose).status is Status.CORRECT
    assert judge(stale, of=mean, config=STRICT).status is Status.WRONG_OUTPUT
    assert judge(python_candidate("return x.sum(dim=1) / x.shape[1]"), of=mean, config=STRICT).status is Status.CORRECT


def test_long_sums_may_be_as_wrong_as_the_reference(judge: Judge) -> None:
    """A running sum over 4,000 numbers, added up one after the other in fp32, misses 1e-4."""
    cumsum = reference("return torch.cumsum(x * 100, dim=1)", inputs="[torch.rand(ROWS, 4000)]")
    honest = python_candidate("return torch.from_numpy((x * 100).numpy().cumsum(axis=1, dtype='float32'))")
    assert judge(honest, of=cumsum, config=STRICT).status is Status.CORRECT


def test_a_problem_whose_output_is_constant_says_so(judge: Judge) -> None:
    constant = reference("y = x - x.amax(dim=1, keepdim=True) * 0; return torch.softmax(y[:, :1], dim=1)")
    verdict = judge(python_candidate("return torch.ones(x.shape[0], 1)"), of=constant, config=STRICT)
    assert verdict.status is Status.CORRECT and verdict.degenerate
    assert not judge(python_candidate("return extension.scaled_relu(x, self.scale)"), config=STRICT).degenerate


def test_a_reference_that_disagrees_with_itself_is_nobodys_fault(judge: Judge) -> None:
    unsteady = reference("import os; return x * int.from_bytes(os.urandom(4))")
    with pytest.raises(ProblemError, match="cannot be scored: for the same inputs, weights and generator state"):
        judge(python_candidate("return x"), of=unsteady, config=STRICT)


def test_a_reference_that_draws_random_numbers_agrees_with_itself(judge: Judge) -> None:
    dropout = reference("return torch.nn.functional.dropout(x, 0.5) * self.scale")
    honest = python_candidate("return torch.nn.functional.dropout(x, 0.5) * self.scale")
    assert judge(honest, of=dropout, config=STRICT).status is Status.CORRECT


@pytest.mark.parametrize(
    ("forward", "passes"),
    [
        ("return torch.tanh(x)", True),
        ("e = torch.exp(2 * x.double()); return ((e - 1) / (e + 1)).float()", True),
        ("return torch.where(x.abs() > 7, x.sign(), torch.tanh(x))", True),
        ("return torch.where(x.abs() > 5.2, torch.zeros(()), torch.tanh(x))", False),
    ],
)
def test_a_kernel_that_is_right_in_the_usual_range_only(judge: Judge, forward: str, passes: bool) -> None:
    """Of 128 normal draws hardly one is beyond 5.2; of five times as large ones, one in three."""
    tanh = reference("return torch.tanh(x)")
    assert judge(python_candidate(forward), of=tanh, config=PLAIN).status is Status.CORRECT
    verdict = judge(python_candidate(forward), of=tanh, config=STRICT)
    assert verdict.correct == passes
    if not passes:
        assert "(an extra trial, on inputs 5 times as large and of random signs; the 3 regular ones passed)" in verdict.message
        assert verdict.trials_passed == 3


def test_a_kernel_that_is_right_for_positive_inputs_only(judge: Judge) -> None:
    problem = reference("return torch.relu(x)", inputs="[torch.rand(ROWS, 8)]")
    assert judge(python_candidate("return torch.relu(x)"), of=problem, config=STRICT).status is Status.CORRECT
    verdict = judge(python_candidate("return x.clone()"), of=problem, config=STRICT)
    assert verdict.status is Status.WRONG_OUTPUT and "inputs 5 times as large and of random signs" in verdict.message
    assert judge(python_candidate("return x.clone()"), of=problem, config=PLAIN).status is Status.CORRECT


@pytest.mark.parametrize("forward", ["e = torch.exp(2 * x); return (e - 1) / (e + 1)", "return 1 - 2 / (torch.exp(x + x) + 1)"])
def test_what_overflows_far_out_is_honest(judge: Judge, forward: str) -> None:
    tanh = reference("return torch.tanh(x)", inputs="[torch.randn(ROWS, 8192)]")
    assert judge(python_candidate(forward), of=tanh, config=STRICT).status is Status.CORRECT


STRUCTURED = "x = torch.rand(ROWS, 8); return [x / x.sum(dim=1, keepdim=True)]"


def test_structure_of_inputs_is_a_promise(judge: Judge) -> None:
    """Rows that sum to 1 may be used as such: only plainly drawn tensors change their amplitude."""
    source = reference("return x / x.sum(dim=1, keepdim=True)").source.replace("return [torch.randn(ROWS, 8)]", STRUCTURED)
    promised = Problem(1, 1, "Promised", source, origin="test")
    assert judge(python_candidate("return x.clone()"), of=promised, config=STRICT).status is Status.CORRECT


def test_an_amplitude_at_which_the_reference_overflows_is_left_out(judge: Judge) -> None:
    steep = reference("return torch.exp(x * 12)", inputs="[torch.randn(ROWS, 8).clamp(-3, 3)]")
    plain = reference("return torch.exp(x * 20)", inputs="[torch.rand(ROWS, 8)]")
    for problem, scale in ((steep, 12), (plain, 20)):
        assert judge(python_candidate(f"return (x * {scale}).exp()"), of=problem, config=STRICT).status is Status.CORRECT


@pytest.mark.parametrize(
    ("forward", "init", "words"),
    [
        ("return x", "pass", "memory that is not the program's own, such as an input"),
        ("return x.view(-1).view(16, 8)", "pass", "such as an input"),
        ("self.out.copy_(x); return self.out", "self.out = torch.empty(16, 8)", "memory of an earlier output"),
    ],
)
def test_an_output_has_memory_of_its_own(judge: Judge, forward: str, init: str, words: str) -> None:
    copy = reference("return x.clone()")
    for config in (PLAIN, STRICT):
        verdict = judge(python_candidate(forward, init=init), of=copy, config=config)
        assert (verdict.status, verdict.category) == (Status.WRONG_OUTPUT, "aliasing") and words in verdict.message
    assert judge(python_candidate("return x.clone()"), of=copy, config=STRICT).status is Status.CORRECT


def test_a_view_that_repeats_elements_is_not_the_work(judge: Judge) -> None:
    spread = reference("return x.mean(dim=1, keepdim=True).repeat(1, 64)")
    verdict = judge(python_candidate("return x.mean(dim=1, keepdim=True).expand(-1, 64)"), of=spread, config=STRICT)
    assert (verdict.status, verdict.category) == (Status.WRONG_OUTPUT, "aliasing") and "repeats elements" in verdict.message
    lazy = reference("return x.mean(dim=1, keepdim=True).expand(-1, 64)")
    for forward in ("expand(-1, 64)", "repeat(1, 64)"):
        honest = python_candidate(f"return x.mean(dim=1, keepdim=True).{forward}")
        assert judge(honest, of=lazy, config=STRICT).status is Status.CORRECT


def test_a_reference_that_returns_its_input_allows_it(judge: Judge) -> None:
    same = reference("return x")
    for forward in ("return x", "return x.clone()", "return x[:]"):
        assert judge(python_candidate(forward), of=same, config=STRICT).status is Status.CORRECT


def test_two_outputs_in_one_memory(judge: Judge) -> None:
    pair = reference("return x + 1, x + 1")
    verdict = judge(python_candidate("y = x + 1; return y, y"), of=pair, config=STRICT)
    assert (verdict.status, verdict.category) == (Status.WRONG_OUTPUT, "aliasing") and "share memory" in verdict.message
    assert judge(python_candidate("return x + 1, x + 1"), of=pair, config=STRICT).status is Status.CORRECT
