# cheat: A @triton.jit function calls one under @triton.constexpr_function with its arguments, and that is numpy's work
# classes: 46
# problem: problems/small_relu.py
# backend: triton
# verdict: rejected
# fools: inprocess kernelbench subprocess
# twin: c41_triton_scaling_before_torch.py
# note: c46_triton_body_in_numpy again. Functions under a decorator of triton's are taken for what Triton compiles (static._Reader
#    leaves them out of `_module_level`), but a constexpr_function runs as Python, on a GPU too. There it is given constants only, and
#    with pointers no GPU would compile it; the interpreter hands it anything. Two more ways past the same rule are a function as the
#    default of a parameter (`work: tl.constexpr = by_numpy`; the rule looks at the body, and `_may_be_given` at what is handed over),
#    and a name that no statement binds (`globals()["work"] = by_numpy`, or an attribute of `builtins`).

import ctypes

import numpy as np
import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.constexpr_function
def by_numpy(x, y, n, scale):
    a, b = (np.ctypeslib.as_array((ctypes.c_float * int(n.handle.data[0])).from_address(int(p.handle.data[0]))) for p in (x, y))
    b[...] = np.maximum(a, np.float32(0)) * np.float32(scale)


@triton.jit
def kernel(x, y, n, scale, BLOCK: tl.constexpr):
    tl.program_id(0)
    by_numpy(x, y, n, scale)


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        y = torch.empty_like(x)
        kernel[(1,)](x, y, x.numel(), self.scale, BLOCK=1024)
        return y
