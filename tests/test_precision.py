"""Problems in another precision than they were written in: what both sides are given, what is told, and what it is called."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch

from kernel_env.errors import ConfigError
from kernel_env.problems import load_problems
from kernel_env.prompts import initial_messages
from kernel_env.referee import values
from kernel_env.schema import PRECISIONS, Problem, Status, from_json, to_json
from kernel_env.verifier import BlockingVerifier
from rollout.cli import main
from tests.conftest import QUICK, Judge
from tests.test_real_problems import own_candidate

REFERENCE = """
import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(32, 16)
        self.register_buffer("steps", torch.arange(16))

    def forward(self, x, mask, numbers):
        assert x.dtype == self.linear.weight.dtype == numbers[0].dtype == {dtype}
        return torch.relu(self.linear(x)) * mask + self.steps


def get_inputs():
    x = torch.rand(64, 32)
    return [x, torch.rand(64, 16) > 0.5, [x]]


def get_init_inputs():
    return []
"""
CANDIDATE = """
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="masked", cpp_sources='''
#include <torch/extension.h>
torch::Tensor masked(torch::Tensor y, torch::Tensor mask, torch::Tensor steps) {
  auto z = torch::empty_like(y);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, y.scalar_type(), "masked", [&] {
    const auto* a = y.data_ptr<scalar_t>();
    auto* b = z.data_ptr<scalar_t>();
    for (int64_t i = 0; i < y.numel(); ++i) {
      float v = mask.data_ptr<bool>()[i] && a[i] > 0 ? (float)a[i] : 0.0f;
      b[i] = (scalar_t)(v + (float)steps.data_ptr<int64_t>()[i % 16]);
    }
  });
  return z;
}
''', functions=["masked"])


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(32, 16)
        self.register_buffer("steps", torch.arange(16))

    def forward(self, x, mask, numbers):
        return extension.masked(self.linear(x), mask, self.steps)RESULT
"""


def problem(precision: str) -> Problem:
    source = REFERENCE.replace("{dtype}", f"torch.{PRECISIONS[precision or 'fp32']}")
    return Problem(1, 1, "Masked", source, origin="test", precision=precision)


@pytest.mark.parametrize("precision", ["", *PRECISIONS])
def test_both_sides_compute_in_it(judge: Judge, precision: str) -> None:
    verdict = judge(CANDIDATE.replace("RESULT", ""), problem(precision))
    assert verdict.correct and verdict.timing is not None, verdict.message


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_results_have_its_type(judge: Judge, precision: str) -> None:
    verdict = judge(CANDIDATE.replace("RESULT", ".float()"), problem(precision))
    assert (verdict.status, verdict.category) == (Status.WRONG_OUTPUT, "dtype")
    assert f"expected {PRECISIONS[precision]}, got float32" in verdict.message


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_error_of_its_rounding_is_allowed_and_no_larger_one(judge: Judge, precision: str) -> None:
    rounding = {"fp16": 5e-4, "bf16": 4e-3}[precision]
    assert judge(CANDIDATE.replace("RESULT", f" * {1 + rounding}"), problem(precision)).correct
    assert judge(CANDIDATE.replace("RESULT", " * 1.06"), problem(precision)).status is Status.WRONG_OUTPUT


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("number", [1, 4, 5])
def test_a_bundled_reference_is_correct_as_its_own_candidate(verifier: BlockingVerifier, precision: str, number: int) -> None:
    chosen = next(p for p in load_problems("bundled", None, "interpret", precision=precision) if p.problem_id == number)
    verdict = verifier.verify(chosen, own_candidate(chosen), QUICK, 3)
    assert verdict.correct, verdict.message


def test_it_is_part_of_the_problem() -> None:
    plain, half = problem(""), replace(problem(""), precision="fp16")
    assert plain.digest != half.digest != replace(half, precision="bf16").digest
    assert from_json(Problem, to_json(half)) == half
    with pytest.raises(ValueError, match="precision is one of fp32, fp16, bf16"):
        replace(half, precision="int8")


def test_the_model_is_told() -> None:
    plain, half = (initial_messages(p, "cpp")[-1]["content"] for p in (problem(""), replace(problem(""), precision="bf16")))
    assert "torch.bfloat16` before the first call" in half and "bfloat16` before" not in plain
    own = replace(problem("fp16"), prompt=({"role": "user", "content": "own"},))
    assert initial_messages(own, "triton")[-1]["content"] != "own", "it says nothing of the precision"
    with pytest.raises(ConfigError, match="its own prompt knows nothing of problems"):
        initial_messages(own, "triton", True)


class NamedPair(NamedTuple):
    a: torch.Tensor
    b: int


def test_a_cast_keeps_the_structure_and_what_is_one() -> None:
    x = torch.rand(3)
    made = values.cast([x, {"a": (x, torch.arange(3), 2.5)}, None], torch.float16)
    assert made[0].dtype is torch.float16 and made[1]["a"][0] is made[0]
    pair = values.cast(NamedPair(x, 1), torch.float16)
    assert type(pair) is NamedPair and pair.a.dtype is torch.float16 and pair.b == 1
    assert made[1]["a"][1].dtype is torch.int64 and made[1]["a"][2:] == (2.5,) and made[2] is None


def test_a_precision_that_does_not_exist_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "problems.precision=fp8"]) == 2
    assert capsys.readouterr().err == "kernel-env eval: problems.precision=fp8: choose one of fp32, fp16, bf16\n"
