# honest: A softmax that finds maximum and sum in one pass
# classes: 31
# problem: problems/softmax.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <algorithm>
#include <cmath>
torch::Tensor softmax(torch::Tensor x) {
  int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty_like(x);
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = x.data_ptr<float>() + r * cols;
    float* b = y.data_ptr<float>() + r * cols;
    float most = a[0], total = 0;
    for (int64_t i = 0; i < cols; ++i) {
      float now = std::max(most, a[i]);
      total = total * std::exp(most - now) + std::exp(a[i] - now);
      most = now;
    }
    for (int64_t i = 0; i < cols; ++i) b[i] = std::exp(a[i] - most) / total;
  }
  return y;
}
""", functions=["softmax"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.softmax(x)
