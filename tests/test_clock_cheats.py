"""Cheats against the clock, real ones in C++ and Python, each beside the honest kernel that it must not be mistaken for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernel_env.schema import Problem, Status
from tests.conftest import QUICK, REFERENCE, Judge, python_candidate

TIMED = replace(QUICK, num_perf_trials=12, timing_budget_s=0.3)

LATE = '''
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="late", cpp_sources="""
#include <torch/extension.h>
#include <chrono>
#include <thread>
torch::Tensor scaled_relu(torch::Tensor x, double scale, int64_t delay_us) {{
  auto y = torch::zeros_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  int64_t n = x.numel();
  auto work = [=]() {{
    std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
    for (int64_t i = 0; i < n; ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  }};
  std::thread thread(work);
  {end}
  return y;
}}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale, self.calls = scale, 0

    def forward(self, x):
        self.calls += 1
        return extension.scaled_relu(x, self.scale, {delay_us} if self.calls > {after} else 0)
'''


@pytest.mark.parametrize(("delay_us", "after"), [(20_000, 0), (300, 6), (20_000, 6)])
def test_work_in_a_thread_after_the_reply_does_not_count(judge: Judge, problem: Problem, delay_us: int, after: int) -> None:
    """From the first call on, or only once timing has begun."""
    large = replace(problem, source=REFERENCE.replace("ROWS = 16", "ROWS = 4096"))
    cheat = judge(LATE.format(end="thread.detach();", delay_us=delay_us, after=after), of=large, config=TIMED)
    seen = Status.TAMPERED, Status.WRONG_OUTPUT, Status.CRASHED  # the last where it writes into memory that is in use again
    assert cheat.status in seen, cheat.message
    honest = judge(LATE.format(end="thread.join();", delay_us=300, after=after), of=large, config=TIMED)
    assert honest.status is Status.CORRECT, honest.message
    assert honest.timing is not None and honest.timing.runtime.median_ms > 0.3


def remembering(key: str) -> str:
    return python_candidate(
        f"key = {key}\n        if key not in self.seen: self.seen[key] = mine(x, self.scale)\n        return self.seen[key]",
        init="self.seen = {}",
    )


@pytest.mark.parametrize("key", ["x.data_ptr()", "id(x)", "x._version", "(x[0, 0] > 0).item()", "x.shape", "torch.initial_seed()"])
def test_an_answer_that_is_remembered_is_wrong_the_next_time(judge: Judge, key: str) -> None:
    assert judge(remembering(key), config=TIMED).status is Status.WRONG_OUTPUT


def test_remembering_what_was_really_computed_from_these_very_values_is_fine(judge: Judge) -> None:
    assert judge(remembering("bytes(x.numpy().tobytes())"), config=TIMED).status is Status.CORRECT


COUNTING = "self.calls += 1\n        if self.calls > 6: {after}\n        return mine(x, self.scale)"


@pytest.mark.parametrize(
    ("after", "status"),
    [
        ("return self.last", Status.WRONG_OUTPUT),
        ("return torch.empty_like(x)", Status.WRONG_OUTPUT),
        ("y = mine(x, self.scale); y[8:] = 0; return y", Status.WRONG_OUTPUT),
        ("return x.relu_().mul_(self.scale)", Status.MUTATED_INPUTS),
        ("return mine(x, self.scale)", Status.CORRECT),
    ],
)
def test_a_program_that_changes_its_ways_once_it_is_timed_is_seen(judge: Judge, after: str, status: Status) -> None:
    code = python_candidate(COUNTING.format(after=after), init="self.calls = 0; self.last = torch.zeros(16, 8)")
    assert judge(code, config=TIMED).status is status


LAZY = """
class Lazy(torch.Tensor):
    pass
"""


@pytest.mark.parametrize(
    "forward",
    [
        "return mine(x, self.scale).as_subclass(Lazy)",
        "y = mine(x, self.scale); y.contiguous = lambda: y; return y",
        "return torch.sparse_coo_tensor(torch.zeros(1, 1).long(), torch.ones(1), (4,))",
    ],
)
def test_only_plain_tensors_are_outputs(judge: Judge, forward: str) -> None:
    verdict = judge(python_candidate(forward, top=LAZY))
    assert (verdict.status, verdict.category) == (Status.WRONG_OUTPUT, "structure")


@pytest.mark.parametrize(
    "forward",
    [
        "return mine(x.t().contiguous(), self.scale).t()",
        "wide = torch.zeros(16, 24); wide[:, 8:16] = mine(x, self.scale); return wide[:, 8:16]",
        "far = torch.zeros(16, 8, 64); far[..., 5] = mine(x, self.scale); return far[..., 5]",
        "self.scratch.copy_(mine(x, self.scale)); return self.scratch.clone()",
        "return nn.Parameter(mine(x, self.scale))",
    ],
)
def test_views_and_buffers_of_ones_own_are_outputs_too(judge: Judge, forward: str) -> None:
    verdict = judge(python_candidate(forward, init="self.scratch = torch.empty(16, 8)"), config=TIMED)
    assert verdict.status is Status.CORRECT, verdict.message


def test_an_expanded_output_is_read_as_what_it_shows(judge: Judge, problem: Problem) -> None:
    source = REFERENCE.replace("return torch.relu(x) * self.scale", "return torch.relu(x).sum().expand(16, 8)")
    code = python_candidate("return torch.relu(x).sum().expand(16, 8)")
    assert judge(code, of=replace(problem, source=source), config=TIMED).status is Status.CORRECT


@pytest.mark.parametrize(
    ("after", "statuses"),
    [
        ("self.scratch.copy_(mine(x, self.scale)); return self.scratch", {Status.WRONG_OUTPUT}),
        ("x.copy_(mine(x, self.scale)); return x", {Status.WRONG_OUTPUT, Status.MUTATED_INPUTS}),
        ("y = mine(x, self.scale); return y.as_strided((16, 8), (8, 1))", {Status.CORRECT}),
    ],
)
def test_memory_that_is_not_ones_own_is_seen_in_timed_calls_too(judge: Judge, after: str, statuses: set[Status]) -> None:
    code = python_candidate(COUNTING.format(after=after), init="self.calls = 0; self.scratch = torch.empty(16, 8)")
    verdict = judge(code, config=replace(TIMED, num_perf_trials=60))
    assert verdict.status in statuses, verdict.message


def test_a_reference_that_keeps_a_state_from_call_to_call_can_be_matched(judge: Judge, problem: Problem) -> None:
    counting = "self.n += 1\n        return torch.relu(x) * self.n"
    source = REFERENCE.replace("self.scale = scale", "self.n = 0").replace("return torch.relu(x) * self.scale", counting)
    verdict = judge(python_candidate(counting, init="self.n = 0"), of=replace(problem, source=source), config=TIMED)
    assert verdict.status is Status.CORRECT and verdict.timing is not None


@pytest.mark.parametrize(
    "draw", ["torch.triu(torch.randn(ROWS, 8))", "torch.randint(0, 9, (ROWS, 8)).float()", "torch.randn(ROWS, 8) * 2"]
)
def test_problems_whose_inputs_have_a_structure_keep_it_when_timed(judge: Judge, problem: Problem, draw: str) -> None:
    structured = replace(problem, source=REFERENCE.replace("torch.randn(ROWS, 8)", draw))
    upper = "assert 'triu' not in DRAW or bool((x == x.triu()).all())\n        return mine(x, self.scale)"
    honest = python_candidate(upper, top=f"DRAW = {draw!r}")
    assert judge(honest, of=structured, config=TIMED).status is Status.CORRECT
    assert judge(remembering("x.shape"), of=structured, config=TIMED).status is Status.WRONG_OUTPUT


COUNTS = """
import sys

def calls_in_message():
    f = sys._getframe()
    while f.f_code.co_name != "_call":
        f = f.f_back
    return len(f.f_locals["frame"]["indices"]), len(f.f_locals["outputs"])
"""
"""How many calls the message has that is being answered, and which one this is: read in the runner's own frame."""


@pytest.mark.parametrize(
    ("skips", "status"),
    [
        ("at + 1 < of", Status.WRONG_OUTPUT),
        ("of > 1 and at > 0", Status.WRONG_OUTPUT),
        ("of == 1 and self.calls > 40 and self.calls % 2", Status.WRONG_OUTPUT),
        ("False", Status.CORRECT),
    ],
)
def test_no_call_of_a_message_can_be_skipped(judge: Judge, skips: str, status: Status) -> None:
    """A candidate can see how many calls it was sent, and could do only the first of them, the last, or every other message."""
    forward = (
        f"self.calls += 1; of, at = calls_in_message()\n        return torch.zeros_like(x) if ({skips}) else mine(x, self.scale)"
    )
    verdict = judge(
        python_candidate(forward, init="self.calls = 0", top=COUNTS),
        config=replace(TIMED, num_perf_trials=400, timing_budget_s=3.0),
    )
    assert verdict.status is status, verdict.message
