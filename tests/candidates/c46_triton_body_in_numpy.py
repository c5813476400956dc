# cheat: A @triton.jit function whose body calls a Python function, and that is numpy's work
# classes: 46
# problem: problems/small_relu.py
# backend: triton
# torch_ops: none
# verdict: rejected runtime_error
# fools: inprocess kernelbench subprocess
# twin: c41_triton_scaling_before_torch.py
# note: The interpreter runs the body as Python. No GPU would compile it ("python_work is not a JITFunction"). torch works as well as numpy
#    there; with addmm, softmax and so on any problem is solved.

import numpy as np
import torch
import torch.nn as nn
import triton
import triton.language as tl

STATE = {}


def python_work():
    STATE["y"][...] = np.maximum(STATE["x"], np.float32(0)) * STATE["scale"]


@triton.jit
def kernel(x, y, n, scale, BLOCK: tl.constexpr):
    tl.program_id(0)
    python_work()


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        y = torch.empty_like(x)
        STATE.update(x=x.numpy(), y=y.numpy(), scale=np.float32(self.scale))
        kernel[(1,)](x, y, x.numel(), self.scale, BLOCK=1024)
        return y
