# honest: Two outputs, one after the other in one allocation
# problem: problems/mean_and_variance.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="moments", cpp_sources="""
#include <torch/extension.h>
std::tuple<torch::Tensor, torch::Tensor> moments(torch::Tensor x) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto both = torch::empty({2, rows}, x.options());
  const float* in = x.data_ptr<float>();
  float* out = both.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    double mean = 0.0, m2 = 0.0;
    for (int64_t c = 0; c < cols; ++c) {
      const double d = in[r * cols + c] - mean;
      mean += d / (c + 1);
      m2 += d * (in[r * cols + c] - mean);
    }
    out[r] = mean;
    out[rows + r] = m2 / cols;
  }
  return {both[0], both[1]};
}
""", functions=["moments"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.moments(x)
