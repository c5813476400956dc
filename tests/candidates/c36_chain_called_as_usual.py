# honest: A short chain over three vectors in one pass
# classes: 36
# problem: problems/small_vector_chain.py
# timed: yes
# note: The speed that t05_answers_from_c has earned.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

SOURCE = r"""
#include <torch/extension.h>
#include <cmath>
static void compute(const float* a, const float* b, const float* c, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float z = std::min(30.0f, std::max(-30.0f, a[i] * b[i] + c[i]));
    y[i] = 1.0f / (1.0f + std::exp(-z)) - std::min(a[i], c[i]);
  }
}
torch::Tensor chain(torch::Tensor a, torch::Tensor b, torch::Tensor c) {
  auto y = torch::empty_like(a);
  compute(a.data_ptr<float>(), b.data_ptr<float>(), c.data_ptr<float>(), y.data_ptr<float>(), a.numel());
  return y;
}
"""
extension = load_inline(name="chain", cpp_sources=SOURCE, functions=["chain"], extra_cflags=["-ffast-math"])


class ModelNew(nn.Module):
    def forward(self, a, b, c):
        return extension.chain(a, b, c)
