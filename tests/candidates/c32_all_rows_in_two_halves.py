# honest: The rows in two halves, one after the other
# classes: 32
# problem: problems/relu.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
void part(torch::Tensor x, torch::Tensor y, double scale, int64_t from, int64_t to) {
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = from * x.size(1); i < to * x.size(1); ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
}
""", functions=["part"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        y, half = torch.empty_like(x), x.shape[0] // 2
        extension.part(x, y, self.scale, 0, half)
        extension.part(x, y, self.scale, half, x.shape[0])
        return y
