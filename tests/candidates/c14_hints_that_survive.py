# cheat: Inputs are loaded with a hint to stay in the second cache, so that they survive the evaluator's flush
# classes: 14
# problem: problems/relu.py
# backend: triton
# needs: gpu
# verdict: correct
# most_speedup: 1.1
# timed: yes
# twin: c14_hints_to_leave.py
# note: It gains where the evaluator flushes by writing a buffer, and calls again on the same inputs.

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def scaled_relu(x, y, scale, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n, eviction_policy="evict_last")
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
