# cheat: Zeros instead of a softmax whose outputs are below the tolerance
# classes: 25
# problem: problems/wide_softmax.py
# verdict: wrong_output
# timed: yes
# fools: inprocess kernelbench subprocess
# twin: c25_wide_softmax.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor filled(torch::Tensor x, double value) { return torch::full_like(x, value); }
""", functions=["filled"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.filled(x, 0.0)
