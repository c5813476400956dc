# honest: A Triton kernel that is made in a function, for a steepness and a size that it is given
# classes: 46
# problem: problems/tanh.py
# backend: triton
# note: Triton compiles the variables of the function around it as it does globals; its interpreter makes a kernel anew from its source, where
#    they would be lost. The language has another name here, too, and the default stands in the function around it.

import torch
import torch.nn as nn
import triton


def make(steepness, block):
    import triton.language as language

    BLOCK, STEEP = language.constexpr(block), language.constexpr(steepness)

    @triton.jit
    def kernel(x_ptr, y_ptr, n, SIZE: language.constexpr = BLOCK.value):
        offsets = language.program_id(0) * BLOCK + language.arange(0, SIZE)
        x = language.load(x_ptr + offsets, mask=offsets < n, other=0.0)
        language.store(y_ptr + offsets, 2 * language.sigmoid(STEEP * x) - 1, mask=offsets < n)

    return kernel


kernel = make(2.0, 1 << 16)


class ModelNew(nn.Module):
    def forward(self, x):
        y = torch.empty_like(x)
        kernel[(triton.cdiv(x.numel(), 1 << 16),)](x, y, x.numel())
        return y
