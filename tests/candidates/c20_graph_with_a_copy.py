# honest: A captured graph is replayed on a copy of the new input, and its output is copied too
# classes: 20
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
        self.graph = None

    def forward(self, x):
        if self.graph is None:
            self.x, n = x.clone(), x.numel()
            scaled_relu[(triton.cdiv(n, 1024),)](self.x, torch.empty_like(x), self.scale, n, BLOCK=1024)
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.y = torch.empty_like(x)
                scaled_relu[(triton.cdiv(n, 1024),)](self.x, self.y, self.scale, n, BLOCK=1024)
        self.x.copy_(x)
        self.graph.replay()
        return self.y.clone()
