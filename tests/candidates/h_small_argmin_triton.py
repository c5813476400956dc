# honest: A tuple of float and int64 outputs in Triton
# problem: problems/small_argmin.py
# backend: triton

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def argmin_kernel(x_ptr, value_ptr, index_ptr, cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * cols + lanes, mask=lanes < cols, other=float("inf"))
    tl.store(value_ptr + row, tl.min(x, axis=0))
    tl.store(index_ptr + row, tl.argmin(x, axis=0).to(tl.int64))


class ModelNew(nn.Module):
    def forward(self, x):
        rows, cols = x.shape
        values = x.new_empty(rows)
        indices = torch.empty(rows, dtype=torch.int64)
        argmin_kernel[(rows,)](x, values, indices, cols, BLOCK=512)
        return values, indices
