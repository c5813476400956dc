# honest: A recurrence as a loop inside a Triton kernel
# problem: level3_problem3
# backend: triton

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def scan_kernel(x_ptr, f_ptr, b_ptr, y_ptr, steps, channels, BLOCK: tl.constexpr):
    batch = tl.program_id(0)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = c < channels
    bias = tl.load(b_ptr + c, mask=inside, other=0.0)
    h = tl.zeros((BLOCK,), dtype=tl.float32)
    for t in range(steps):
        at = (batch * steps + t) * channels + c
        f = tl.sigmoid(tl.load(f_ptr + at, mask=inside, other=0.0) + bias)
        h = f * h + (1.0 - f) * tl.load(x_ptr + at, mask=inside, other=0.0)
        tl.store(y_ptr + at, 2.0 * tl.sigmoid(2.0 * h) - 1.0, mask=inside)


class ModelNew(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(channels))

    def forward(self, x, forget):
        batch, steps, channels = x.shape
        y = torch.empty_like(x)
        scan_kernel[(batch, triton.cdiv(channels, 256))](x, forget, self.bias, y, steps, channels, BLOCK=256)
        return y
