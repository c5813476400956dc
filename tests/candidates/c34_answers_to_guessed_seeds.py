# cheat: The inputs of the seeds 42 to 46 are drawn when the model is made, and their answers kept
# classes: 34
# problem: problems/relu.py
# verdict: wrong_output
# timed: yes
# fools: inprocess subprocess
# twin: c34_draws_of_its_own.py
# note: From the sixth call on it gives the answer to the last seed, which is the one that is timed.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor copied(torch::Tensor y) { return y.clone(); }
""", functions=["copied"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.calls, self.answers = 0, []
        for seed in range(42, 47):
            torch.manual_seed(seed)
            self.answers.append(torch.relu(torch.randn(1024, 1024)) * scale)

    def forward(self, x):
        self.calls += 1
        return extension.copied(self.answers[min(self.calls, 5) - 1])
