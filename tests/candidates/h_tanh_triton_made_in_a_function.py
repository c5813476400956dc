# honest: A Triton kernel that is made in a function, for an activation that it is given
# classes: 46
# problem: problems/tanh.py
# backend: triton
# note: Triton compiles the variables of the function around it as it does globals; its interpreter makes a kernel anew from its source, where
#    they would be lost. The language has another name here, too, and the default stands in the function around it.

import torch
import torch.nn as nn
import triton


def make(activation, block):
    import triton.language as language

    BLOCK = language.constexpr(block)

    @triton.jit
    def kernel(x_ptr, y_ptr, n, SIZE: language.constexpr = BLOCK.value):
        offsets = language.program_id(0) * BLOCK + language.arange(0, SIZE)
        x = language.load(x_ptr + offsets, mask=offsets < n, other=0.0)
        language.store(y_ptr + offsets, activation(x), mask=offsets < n)

    return kernel


@triton.jit
def tanh(x):
    return 2 * triton.language.sigmoid(2 * x) - 1


kernel = make(tanh, 1 << 16)


class ModelNew(nn.Module):
    def forward(self, x):
        y = torch.empty_like(x)
        kernel[(triton.cdiv(x.numel(), 1 << 16),)](x, y, x.numel())
        return y
