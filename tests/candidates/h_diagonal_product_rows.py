# honest: A row times a number, where the reference multiplies matrices: really many times as fast
# classes: 12 32
# problem: problems/diagonal_product.py
# least_speedup: 5

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="diagonal", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled(torch::Tensor d, torch::Tensor x) {
  auto y = torch::empty_like(x);
  const int64_t cols = x.size(1);
  const float *in = x.data_ptr<float>(), *s = d.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < x.size(0); ++r)
    for (int64_t c = 0; c < cols; ++c) out[r * cols + c] = s[r] * in[r * cols + c];
  return y;
}
""", functions=["scaled"])


class ModelNew(nn.Module):
    def forward(self, d, x):
        return extension.scaled(d, x)
