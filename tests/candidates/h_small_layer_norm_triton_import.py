# honest: Triton imported under try; without it the module would raise, and nothing falls back to torch
# classes: 42
# problem: problems/small_layer_norm.py
# backend: triton

import torch
import torch.nn as nn

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise RuntimeError("this kernel needs Triton") from error


@triton.jit
def norm_kernel(x_ptr, y_ptr, cols, EPS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    lanes = tl.arange(0, BLOCK)
    inside = lanes < cols
    x = tl.load(x_ptr + row * cols + lanes, mask=inside, other=0.0)
    mean = tl.sum(x, 0) / cols
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, 0) / cols
    tl.store(y_ptr + row * cols + lanes, centred / tl.sqrt(variance + EPS), mask=inside)


class ModelNew(nn.Module):
    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        y = torch.empty_like(flat)
        norm_kernel[(flat.shape[0],)](flat, y, flat.shape[1], EPS=1e-5, BLOCK=256)
        return y.view(x.shape)
