"""What the interpreter cannot run is the machine's fault; what a wrong program asks of a GPU is not."""

from __future__ import annotations

import pytest

from kernel_env.schema import Status
from tests.conftest import Judge

pytest.importorskip("triton")

KERNEL = """import torch, triton, triton.language as tl
from triton.language.extra import libdevice

@triton.jit
def scale(x, y, n, by, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, 2.0 * tl.load(x + at, mask=at < n) + by, mask=at < n)

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
