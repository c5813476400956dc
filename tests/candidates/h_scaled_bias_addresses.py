# honest: The kernel takes addresses and sizes, not tensors
# classes: 17 41
# problem: problems/scaled_bias.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="addresses", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
void run(int64_t x, int64_t bias, int64_t scale, int64_t y, int64_t rows, int64_t cols) {
  const float *in = reinterpret_cast<const float*>(x), *b = reinterpret_cast<const float*>(bias);
  const float* s = reinterpret_cast<const float*>(scale);
  float* out = reinterpret_cast<float*>(y);
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      const float e = std::exp(2.0f * (in[r * cols + c] + b[c]) * s[c]);
      out[r * cols + c] = 1.0f - 2.0f / (e + 1.0f);
    }
}
""", functions=["run"], extra_cflags=["-ffast-math"])


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(width))
        self.scale = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        y = torch.empty_like(x)
        extension.run(x.data_ptr(), self.bias.data_ptr(), self.scale.data_ptr(), y.data_ptr(), *x.shape)
        return y
