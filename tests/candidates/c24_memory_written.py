# honest: Memory that was just given back is written whole
# classes: 24
# problem: problems/unit_relu.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="relu_into", cpp_sources="""
#include <torch/extension.h>
void positive(torch::Tensor x, torch::Tensor y) {
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] : 0.0f;
}
torch::Tensor scaled(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] * (float)scale;
  return y;
}
""", functions=["positive", "scaled"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        y = torch.empty_like(x)
        extension.positive(x, y)
        return y if self.scale == 1 else extension.scaled(y, self.scale)
