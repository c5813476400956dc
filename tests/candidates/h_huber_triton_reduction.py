# honest: A loss for every row in Triton, with heuristics for the block
# problem: level1_problem8
# backend: triton

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.heuristics({"BLOCK": lambda args: triton.next_power_of_2(args["cols"])})
@triton.jit
def huber_kernel(p_ptr, t_ptr, y_ptr, cols, delta, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    inside = lanes < cols
    p = tl.load(p_ptr + row * cols + lanes, mask=inside, other=0.0)
    t = tl.load(t_ptr + row * cols + lanes, mask=inside, other=0.0)
    error = tl.abs(p - t)
    quadratic = tl.minimum(error, delta)
    tl.store(y_ptr + row, tl.sum(0.5 * quadratic * quadratic + delta * (error - quadratic), axis=0) / cols)


class ModelNew(nn.Module):
    def __init__(self, delta):
        super().__init__()
        self.delta = delta

    def forward(self, prediction, target):
        rows, cols = prediction.shape
        y = torch.empty(rows, dtype=prediction.dtype, device=prediction.device)
        huber_kernel[(rows,)](prediction, target, y, cols, self.delta)
        return y
