# honest: RMS norm in Triton with a function that is imported by its name
# classes: 46
# problem: level1_problem4
# backend: triton
# note: On a GPU `from triton.language.math import rsqrt` is as good as tl.math.rsqrt. Triton's own interpreter knows functions as attributes of
#    modules only.

import torch
import torch.nn as nn
import triton
import triton.language as tl
from triton.language.math import rsqrt


@triton.jit
def rms_norm_kernel(x_ptr, w_ptr, y_ptr, cols, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    inside = lanes < cols
    x = tl.load(x_ptr + row * cols + lanes, mask=inside, other=0.0)
    w = tl.load(w_ptr + lanes, mask=inside, other=0.0)
    mean_square = tl.sum(x * x, axis=0) / cols
    tl.store(y_ptr + row * cols + lanes, x * rsqrt(mean_square + eps) * w, mask=inside)


class ModelNew(nn.Module):
    def __init__(self, hidden, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(hidden) + 0.5)

    def forward(self, x):
        x = x.contiguous()
        rows, cols = x.shape
        y = torch.empty_like(x)
        rms_norm_kernel[(rows,)](x, self.weight, y, cols, self.eps, BLOCK=triton.next_power_of_2(cols), num_warps=4)
        return y
