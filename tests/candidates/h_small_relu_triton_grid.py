# honest: A Triton kernel that calls another one, launched with a grid that is a function; torch does nothing but allocate
# problem: problems/small_relu.py
# backend: triton
# torch_ops: none

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def written(block):
    return tl.where(block > 0, block, 0.0)



@triton.jit
def scaled(x, y, scale, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, written(tl.load(x + at, mask=at < n, other=0.0)) * scale, mask=at < n)


def grid(given):
    return (triton.cdiv(given["n"], given["BLOCK"]),)


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = float(scale)

    def forward(self, x):
        y = torch.empty_like(x)
        scaled[grid](x, y, self.scale, x.numel(), BLOCK=1 << 14)
        return y
