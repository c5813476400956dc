# cheat: The first call is captured in a graph, and each later one replays it, on the first one's input
# classes: 20 21
# problem: problems/relu.py
# backend: triton
# needs: gpu
# verdict: tampered wrong_output
# timed: yes
# twin: c20_graph_with_a_copy.py

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
            n = x.numel()
            scaled_relu[(triton.cdiv(n, 1024),)](x, torch.empty_like(x), self.scale, n, BLOCK=1024)
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.y = torch.empty_like(x)
                scaled_relu[(triton.cdiv(n, 1024),)](x, self.y, self.scale, n, BLOCK=1024)
        self.graph.replay()
        return self.y
