"""What the interpreter cannot run is the machine's fault; what a wrong program asks of a GPU is not."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from kernel_env.schema import Problem, Status
from tests.conftest import Judge

pytest.importorskip("triton")

KERNEL = """import math, torch, triton, triton.language as tl
from triton.language.extra import libdevice

@triton.jit
def scale(x, y, n, by, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, 2.0 * tl.load(x + at, mask=at < n) + by, mask=at < n)

TWO = tl.constexpr(2.0)

@triton.jit
def constants(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    quarter = 0.25
    tl.store(y + at, TWO * tl.load(x + at, mask=at < n) + 2 * math.sqrt(quarter), mask=TWO * at < 2 * n)

@triton.jit
def tanh(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, libdevice.tanh(tl.load(x + at, mask=at < n)), mask=at < n)

@triton.jit
def fails(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < n), mask=at < n)
    tl.store(y + at, no_such_name)

class ModelNew(torch.nn.Module):
    def forward(self, x):
        y, n = torch.empty_like(x), x.numel()
        grid = (triton.cdiv(n, 1024),)
%s
        return y
"""


@pytest.mark.parametrize(
    "body, status",
    [
        ("scale[grid](x, y, n, 1.0, BLOCK=1024)", Status.CORRECT),
        ("constants[grid](x, y, n, BLOCK=1024)", Status.CORRECT),
        ("scale[lambda given: (triton.cdiv(given['x'].numel(), given['BLOCK']),)](x, y, n, 1.0, BLOCK=1024)", Status.CORRECT),
        ("torch.cuda.current_device()\nscale[grid](x, y, n, 1.0, BLOCK=1024)", Status.NEEDS_DEVICE),
        ("scale[grid](x, y, n, 1.0, BLOCK=1024)\ntorch.cuda.current_device()", Status.RUNTIME_ERROR),
        ("scale[grid](x, y, n, 1.0, BLOCK=1024)\ny.cuda()", Status.RUNTIME_ERROR),
        ("scale[grid](x, y, n, 1.0, BLOCK=1024)\nlibdevice.tanh(y)", Status.RUNTIME_ERROR),
        ("tanh[grid](x, y, n, BLOCK=1024)", Status.NEEDS_DEVICE),
        ("scale[grid](x, y, n, 1.0, BLOCK=1024)\ntanh[grid](x, y, n, BLOCK=1024)", Status.NEEDS_DEVICE),
        (
            "scale[lambda meta: (torch.cuda.get_device_properties(0).multi_processor_count,)](x, y, n, 1.0, BLOCK=1024)",
            Status.NEEDS_DEVICE,
        ),
        ("try:\n    fails[grid](x, y, n, BLOCK=1024)\nexcept Exception:\n    torch.cuda.current_device()", Status.RUNTIME_ERROR),
    ],
)
def test_asking_for_a_gpu_counts_until_a_kernel_has_run(judge: Judge, body: str, status: Status) -> None:
    from rollout.doctor import PROBLEM

    code = KERNEL % "\n".join(f"        {line}" for line in body.splitlines())
    verdict = judge(code, of=PROBLEM, backend="triton")
    assert verdict.status is status, verdict.message


def test_what_programs_ask_around_a_launch_is_answered(judge: Judge) -> None:
    from rollout.doctor import PROBLEM

    body = """
        with torch.cuda.device(x.device), torch.cuda.stream(torch.cuda.current_stream()):
            scale[grid](x, y, n, 1.0, BLOCK=1024)
        with torch.cuda.device_of(x):
            torch.cuda.current_stream(x.device).synchronize()
        torch.cuda.synchronize(x.device)
        torch.cuda.empty_cache()"""
    verdict = judge(KERNEL % body, of=PROBLEM, backend="triton")
    assert verdict.status is Status.CORRECT, verdict.message


BFLOAT = """import torch, triton, triton.language as tl

@triton.jit
def many(x, y, o, n: tl.constexpr):
    i = tl.arange(0, n)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(o + i, a + b)
    tl.store(o + n + i, a * b - b)
    tl.store(o + 2 * n + i, a / b)
    tl.store(o + 3 * n + i, tl.maximum(a, 0.0))
    tl.store(o + 4 * n + i, tl.where(a > b, -a, b * 2.5 + 1.0))
    tl.store(o + 5 * n + i, a.to(tl.float16).to(tl.bfloat16) + i.to(tl.bfloat16))
    tl.store(o + 6 * n + i, a * 0 + tl.max(a, axis=0))
    tl.store(o + 7 * n + i, (a > 0).to(tl.bfloat16) + tl.full((n,), 1.7, tl.bfloat16))
    tl.store(o + 8 * n + i, tl.exp(a.to(tl.float32)).to(tl.bfloat16))
    tl.store(o + 9 * n + i, a.to(tl.int32).to(tl.bfloat16))
    tl.store(o + 10 * n + i, tl.cumsum(a, axis=0))
    tl.store(o + 11 * n + i, a * 0 + tl.sum(a, axis=0))

@triton.jit
def added(x, o):
    tl.atomic_add(o, tl.load(x))

class ModelNew(torch.nn.Module):
    def forward(self, x, y):
        o = torch.zeros(12, 64, dtype=x.dtype)
        %s
        return o
"""
BFLOAT_REFERENCE = """import torch

class Model(torch.nn.Module):
    def forward(self, x, y):
        return torch.stack([
            x + y, x * y - y, x / y, x.relu(), torch.where(x > y, -x, y * 2.5 + 1.0),
            x.half().bfloat16() + torch.arange(64).bfloat16(),
            x.max().expand(64), (x > 0).bfloat16() + torch.tensor(1.7).bfloat16(), x.exp(), x.int().bfloat16(), x.cumsum(0),
            x.sum().expand(64),
        ])

def get_inputs():
    return [torch.randn(64).bfloat16() * 2, torch.rand(64).bfloat16() + 0.5]

def get_init_inputs():
    return []
"""


@pytest.mark.parametrize(
    ("call", "status"),
    [("many[(1,)](x, y, o, 64)", Status.CORRECT), ("added[(1,)](x, o)", Status.NEEDS_DEVICE)],
)
def test_bfloat16_is_as_torch_computes_it(judge: Judge, call: str, status: Status) -> None:
    problem = Problem(1, 1, "Bfloat", BFLOAT_REFERENCE, origin="test")
    verdict = judge(BFLOAT % call, of=problem, backend="triton")
    assert verdict.status is status, verdict.message


def test_every_number_is_rounded_to_the_nearest_bfloat16() -> None:
    from kernel_env.backends.bfloat import to_bfloat, to_single

    x = torch.randint(-(2**31), 2**31, (100_000,)).int().view(torch.float32)
    rounded = torch.from_numpy(to_single(to_bfloat(x.numpy())))
    torch.testing.assert_close(rounded, x.bfloat16().float(), rtol=0, atol=0, equal_nan=True)


def test_each_operation_is_rounded_from_float32_and_none_without_its_part() -> None:
    table = subprocess.run([sys.executable, "-m", "tests.bfloat_table"], check=True, capture_output=True, text=True, timeout=120)
    wrong = json.loads(table.stdout)
    assert wrong.pop("") == []
    assert [name for name, found in wrong.items() if not found] == ["create_fp_to_fp"]  # exact by itself: another way to the same
    assert {"create_dot", "create_erf", "create_rsqrt", "create_fma", "cumsum", "cumprod", "sum", "min_max"} <= set(wrong)
