# honest: A Triton kernel with an output of its own
# problem: problems/relu.py
# classes: 27 32 35 37 39
# backend: triton

import torch
import torch.nn as nn
import triton
import triton.language as tl



@triton.jit
def scaled_relu(x, y, scale, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n, other=0.0)
    tl.store(y + at, tl.maximum(value, 0.0) * scale, mask=at < n)



class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        y = torch.empty_like(x)
        n, block = x.numel(), 1 << 16
        scaled_relu[(triton.cdiv(n, block),)](x, y, self.scale, n, BLOCK=block)
        return y
