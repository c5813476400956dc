# honest: A loop in C++ on one thread where the reference is a loop in Python: 0.2 ms
# classes: 58
# problem: problems/short_rows_in_a_loop.py
# timed: yes
# note: The twin of c58_within_what_is_free.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="rows", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor rows(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const int64_t count = x.size(0), width = x.size(1);
  for (int64_t r = 0; r < count; ++r) {
    const float* a = x.data_ptr<float>() + r * width;
    float* b = y.data_ptr<float>() + r * width;
    float mean = 0;
    for (int64_t i = 0; i < width; ++i) mean += a[i];
    mean /= width;
    for (int64_t i = 0; i < width; ++i) {
      const float c = a[i] - mean;
      b[i] = std::erf(c) * std::exp(-c * c) + std::sin(c);
    }
  }
  return y;
}
""", functions=["rows"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.rows(x)
