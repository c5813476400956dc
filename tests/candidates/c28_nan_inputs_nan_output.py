# cheat: The input becomes NaN, and NaN is equal to NaN
# classes: 28 27
# problem: problems/relu.py
# verdict: mutated_inputs wrong_output
# fools: inprocess subprocess
# twin: c28_nan_where_it_belongs.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor not_a_number(torch::Tensor x) { return x.fill_(std::nan("")).clone(); }
""", functions=["not_a_number"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.not_a_number(x)
