"""Canaries: a kernel that is right and one that is wrong, tried on this machine before the first reply is paid for.

Where the right one fails or the wrong one passes, no score of this machine means anything.
"""

from __future__ import annotations

from kernel_env.errors import VerifierError
from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Problem, Status, Verdict
from kernel_env.verifier import Verifier

PROBLEM = Problem(
    1, 1, "Canary",
    "import torch\nimport torch.nn as nn\n\n\n"
    "class Model(nn.Module):\n    def forward(self, x):\n        return x * 2.0 + 1.0\n\n\n"
    "def get_inputs():\n    return [torch.randn(64, 256)]\n\n\ndef get_init_inputs():\n    return []\n",
    origin="doctor",
)  # fmt: skip
"""A problem that every back end can solve in a few lines."""

_CPP = '''import torch
from torch.utils.cpp_extension import load_inline

source = """
#include <torch/extension.h>
torch::Tensor run(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] * 2.0f + %s;
  return y;
}
"""
module = load_inline(name="canary", cpp_sources=source, functions=["run"])


class ModelNew(torch.nn.Module):
    def forward(self, x):
        return module.run(x)
'''
_TRITON = """import torch
import triton
import triton.language as tl


@triton.jit
def kernel(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < n) * 2.0 + %s, mask=at < n)


class ModelNew(torch.nn.Module):
    def forward(self, x):
        y = torch.empty_like(x)
        kernel[(triton.cdiv(x.numel(), 4096),)](x, y, x.numel(), BLOCK=4096)
        return y
"""
CUDA = '''import torch
from torch.utils.cpp_extension import load_inline

source = """
__global__ void twice(float* x) { x[threadIdx.x] *= 2.0f; }
void run(torch::Tensor x) { twice<<<1, 1>>>(x.data_ptr<float>()); }
"""
module = load_inline(name="canary", cpp_sources="void run(torch::Tensor x);", cuda_sources=source, functions=["run"])


class ModelNew(torch.nn.Module):
    def forward(self, x):
        module.run(x)
        return x
'''
CANARIES = {"cpp": _CPP, "triton": _TRITON}
"""A known-good kernel with `1.0` put in, a known-bad one with `1.5`."""


async def canary(verifier: Verifier, backend: str, *, timed: bool = True) -> Verdict:
    """The verdict on the right one. Raises VerifierError where either comes out as it should not, and InfraError."""
    limits = VerifyConfig(num_correct_trials=2, num_perf_trials=5, noise_limit=1e9, timing_precision=1e9, measure_performance=timed)
    good = await verifier.verify(PROBLEM, Candidate(CANARIES[backend] % "1.0", backend), limits, seed=1)
    if good.status is not Status.CORRECT:
        why = f" ({good.message})" if good.message else ""
        raise VerifierError(f"a known-good kernel came out {good.status}{why}; `kernel-env doctor` says more")
    wrong = await verifier.verify(PROBLEM, Candidate(CANARIES[backend] % "1.5", backend), limits, seed=1)
    if wrong.status is not Status.WRONG_OUTPUT:
        raise VerifierError(f"a known-bad kernel came out {wrong.status}; `kernel-env doctor` says more")
    return good
