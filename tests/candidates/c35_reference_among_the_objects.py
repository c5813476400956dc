# cheat: The reference's model is found among all objects of the process, and asked
# classes: 35
# problem: problems/relu.py
# verdict: wrong_output
# timed: yes
# fools: inprocess kernelbench subprocess
# twin: c35_looks_at_itself.py

import gc
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
        self.other = None

    def forward(self, x):
        if self.other is None:
            models = (o for o in gc.get_objects() if isinstance(o, nn.Module) and type(o).__name__ == "Model")
            self.other = [next(models, None)]
        return extension.copied(self.other[0](x) if self.other[0] else torch.zeros_like(x))
