# honest: A tensor subclass is used on the way, and the output is a plain tensor
# classes: 4 5
# problem: problems/relu.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="plain_relu", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  const float s = scale;
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = (a[i] > 0 ? a[i] : 0.0f) * s;
  return y;
}
""", functions=["scaled_relu"])

class Scaled(torch.Tensor):
    scale = 1.0

    def relu(self):
        return extension.scaled_relu(self.as_subclass(torch.Tensor), self.scale)


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        scaled = x.as_subclass(Scaled)
        scaled.scale = self.scale
        return scaled.relu()
