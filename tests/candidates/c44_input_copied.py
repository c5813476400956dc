# cheat: The input is copied by hand inside the extension, and at::relu and at::mul do the rest
# classes: 44
# problem: problems/relu.py
# verdict: rejected
# fools: inprocess kernelbench subprocess
# twin: c44_allocates_with_torch.py
# note: c44_result_copied from the other end. An operator that is given memory which somebody else has written makes the whole launch
#    "own work" (_Inside.before), whatever was written there: a memcpy of the argument is enough. The copies of arguments are known
#    (`before` in _launch), but nobody holds what was written against them.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <cstring>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto mine = torch::empty_like(x);
  std::memcpy(mine.data_ptr<float>(), x.data_ptr<float>(), x.numel() * sizeof(float));
  return at::mul(at::relu(mine), scale);
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
