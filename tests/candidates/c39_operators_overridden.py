# cheat: The dispatcher's comparisons always agree
# classes: 39
# problem: problems/relu.py
# verdict: wrong_output
# timed: yes
# fools: inprocess kernelbench subprocess
# twin: c39_compares_itself.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor zeros(torch::Tensor x) { return torch::zeros_like(x); }
""", functions=["zeros"])


library = torch.library.Library("aten", "IMPL")
library.impl("allclose", lambda *arguments, **options: True, "CPU")
library.impl("isclose", lambda a, b, *arguments, **options: torch.ones_like(a, dtype=torch.bool), "CPU")


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.zeros(x)
