# cheat: NaN everywhere: what is neither larger nor smaller differs by nothing
# classes: 28
# problem: problems/log.py
# verdict: wrong_output
# timed: yes
# fools: nobody
# twin: c28_nan_where_it_belongs.py
# note: It passes where the largest difference is compared with a limit (`(a - b).abs().max() > limit` is False), and where only
#    finite elements are looked at. None of ours compares so.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor not_a_number(torch::Tensor x) { return torch::full_like(x, std::nan("")); }
""", functions=["not_a_number"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.not_a_number(x)
