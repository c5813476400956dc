# honest: A fused chain over three vectors, launched through a helper class
# problem: problems/small_vector_chain.py
# backend: triton

from dataclasses import dataclass

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def chain_kernel(a_ptr, b_ptr, c_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(axis=0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    a = tl.load(a_ptr + at, mask=inside)
    b = tl.load(b_ptr + at, mask=inside)
    c = tl.load(c_ptr + at, mask=inside)
    tl.store(y_ptr + at, tl.sigmoid(tl.fma(a, b, c)) - tl.minimum(a, c), mask=inside)


@dataclass(frozen=True)
class Launch:
    block: int = 1024

    def __call__(self, *tensors: torch.Tensor) -> torch.Tensor:
        y = torch.empty_like(tensors[0])
        chain_kernel[(triton.cdiv(y.numel(), self.block),)](*tensors, y, y.numel(), BLOCK=self.block)
        return y


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.launch = Launch()

    def forward(self, a, b, c):
        return self.launch(a, b, c)
