# honest: Works in blocks of 64, and does the rest one by one
# classes: 30
# problem: problems/odd_relu.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  int64_t n = x.numel(), blocks = n / 64;
  #pragma omp parallel for
  for (int64_t k = 0; k < blocks; ++k)
    for (int64_t i = 64 * k; i < 64 * k + 64; ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  for (int64_t i = 64 * blocks; i < n; ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
