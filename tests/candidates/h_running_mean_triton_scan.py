# honest: Two cumulative sums in Triton
# problem: level1_problem7
# backend: triton

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def running_mean_kernel(x_ptr, mask_ptr, y_ptr, length, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    t = tl.arange(0, BLOCK)
    inside = t < length
    kept = tl.load(mask_ptr + row * length + t, mask=inside, other=0.0)
    x = tl.load(x_ptr + row * length + t, mask=inside, other=0.0)
    total = tl.cumsum(x * kept, axis=0)
    count = tl.cumsum(kept, axis=0)
    tl.store(y_ptr + row * length + t, total / tl.maximum(count, 1.0), mask=inside)


class ModelNew(nn.Module):
    def forward(self, x, mask):
        rows, length = x.shape
        y = torch.empty_like(x)
        running_mean_kernel[(rows,)](x, mask, y, length, BLOCK=triton.next_power_of_2(length))
        return y
