# honest: Inputs are read once, with a hint that says so
# classes: 14 13
# problem: problems/relu.py
# backend: triton
# needs: gpu
# timed: yes

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def scaled_relu(x, y, scale, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n, eviction_policy="evict_first")
    tl.store(y + at, tl.maximum(value, 0.0) * scale, mask=at < n)


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        y = torch.empty_like(x)
        n = x.numel()
        scaled_relu[(triton.cdiv(n, 1024),)](x, y, self.scale, n, BLOCK=1024)
        return y
