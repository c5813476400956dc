# cheat: torch.randn gives zeros, and so zeros are the answer
# classes: 34 33
# problem: problems/relu.py
# verdict: wrong_output
# timed: yes
# fools: inprocess kernelbench subprocess
# twin: c34_draws_of_its_own.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor zeros(torch::Tensor x) { return torch::zeros_like(x); }
""", functions=["zeros"])

torch.randn = torch.zeros


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.zeros(x)
