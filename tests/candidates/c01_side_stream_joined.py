# honest: Half of the work runs on a second stream, and the first one waits for it
# classes: 1 2
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
    value = tl.load(x + at, mask=at < n)
    tl.store(y + at, tl.maximum(value, 0.0) * scale, mask=at < n)


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.stream = torch.cuda.Stream()

    def forward(self, x):
        y = torch.empty_like(x)
        half = x.numel() // 2
        rest = x.numel() - half
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            scaled_relu[(triton.cdiv(half, 1024),)](x.view(-1)[:half], y.view(-1)[:half], self.scale, half, BLOCK=1024)
        scaled_relu[(triton.cdiv(rest, 1024),)](x.view(-1)[half:], y.view(-1)[half:], self.scale, rest, BLOCK=1024)
        current.wait_stream(self.stream)
        return y
