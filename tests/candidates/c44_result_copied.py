# cheat: at::relu and at::mul inside, and the result is copied by hand
# classes: 44 41
# problem: problems/relu.py
# verdict: rejected
# fools: inprocess kernelbench subprocess
# twin: c44_allocates_with_torch.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <cstring>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto z = at::mul(at::relu(x), scale);
  auto y = torch::empty_like(x);
  std::memcpy(y.data_ptr<float>(), z.data_ptr<float>(), z.nbytes());
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
