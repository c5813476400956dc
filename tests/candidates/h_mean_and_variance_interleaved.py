# honest: Two outputs that lie side by side in one allocation, as columns: no element belongs to both
# problem: problems/mean_and_variance.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="pairs", cpp_sources="""
#include <torch/extension.h>
torch::Tensor pairs(torch::Tensor x) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty({rows, 2}, x.options());
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0.0, square = 0.0;
    for (int64_t c = 0; c < cols; ++c) {
      const double v = in[r * cols + c];
      sum += v;
      square += v * v;
    }
    const double mean = sum / cols;
    out[2 * r] = mean;
    out[2 * r + 1] = square / cols - mean * mean;
  }
  return y;
}
""", functions=["pairs"])


class ModelNew(nn.Module):
    def forward(self, x):
        mean, variance = extension.pairs(x).unbind(1)
        return mean, variance
