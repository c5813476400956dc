# cheat: It ends itself by a signal that has no name: the referee's worker dies of it, and the turn is unscored
# classes: 51 53
# problem: problems/relu.py
# verdict: crashed wrong_output
# downs: inprocess kernelbench subprocess
# twin: c03_pool_waited_for.py
# note: Only where the PID namespace is missing, as in most containers (verifier.sandbox_without); with it the first process ignores
#   the signal, and this is wrong_output. signal.Signals(40) in RunnerProcess._died raises ValueError, because Python
#   names SIGRTMIN and SIGRTMAX only, and nobody catches it.

import os

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor zeros(torch::Tensor x) { return torch::zeros_like(x); }
""", functions=["zeros"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        os.kill(os.getpid(), 40)
        return extension.zeros(x)
