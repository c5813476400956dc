# honest: GELU in Triton with math.pi and math.sqrt for its constant
# classes: 46
# problem: level1_problem1
# backend: triton
# note: Triton compiles this: `math` is one of the modules that it supports, and its functions are called with the values of their arguments.

import math

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def gelu_kernel(x_ptr, y_ptr, n_elements, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n_elements
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0)
    inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)
    # 0.5 (1 + tanh(z)) = sigmoid(2 z)
    tl.store(y_ptr + offsets, x * tl.sigmoid(2.0 * inner), mask=mask)


class ModelNew(nn.Module):
    def forward(self, x):
        x = x.contiguous()
        y = torch.empty_like(x)
        n = x.numel()
        gelu_kernel[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, y, n, BLOCK=1024)
        return y
