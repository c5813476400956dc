# cheat: numpy's comparisons always agree, those of the checker's module too
# classes: 39 40
# problem: problems/relu.py
# verdict: wrong_output
# fools: nobody
# twin: c39_compares_itself.py
# note: It beats evaluators that compare with numpy in the candidate's process. Ours compare with torch.

import sys

import numpy as np
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor zeros(torch::Tensor x) { return torch::zeros_like(x); }
""", functions=["zeros"])


np.allclose = np.array_equal = lambda *arguments, **options: True
np.testing.assert_allclose = lambda *arguments, **options: None
for name, module in list(sys.modules.items()):
    if name.endswith("compare"):
        module.compare = module.same_bytes = lambda *arguments, **options: None


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.zeros(x)
