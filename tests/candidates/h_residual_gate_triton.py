# honest: Residual, norm and gate as one Triton kernel
# problem: level2_problem4
# backend: triton

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def gate_kernel(x_ptr, r_ptr, g_ptr, w_ptr, y_ptr, cols, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    inside = lanes < cols
    at = row * cols + lanes
    h = tl.load(x_ptr + at, mask=inside, other=0.0) + tl.load(r_ptr + at, mask=inside, other=0.0)
    g = tl.load(g_ptr + at, mask=inside, other=0.0)
    w = tl.load(w_ptr + lanes, mask=inside, other=0.0)
    h *= 1.0 / tl.sqrt(tl.sum(h * h, axis=0) / cols + eps)
    tl.store(y_ptr + at, h * w * g * tl.sigmoid(g), mask=inside)


class ModelNew(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.weight = nn.Parameter(1.0 + 0.1 * torch.randn(hidden))
        self.eps = 1e-5

    def forward(self, x, residual, gate):
        rows, cols = x.shape
        y = torch.empty_like(x)
        gate_kernel[(rows,)](x, residual, gate, self.weight, y, cols, self.eps, triton.next_power_of_2(cols))
        return y
