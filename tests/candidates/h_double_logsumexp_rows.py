# honest: Double precision in and out
# problem: problems/double_logsumexp.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="lse", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor lse(torch::Tensor x) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty({rows, 1}, x.options());
  const double* in = x.data_ptr<double>();
  double* out = y.data_ptr<double>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const double* a = in + r * cols;
    const double most = *std::max_element(a, a + cols);
    double sum = 0.0;
    for (int64_t c = 0; c < cols; ++c) sum += std::exp(a[c] - most);
    out[r] = most + std::log(sum);
  }
  return y;
}
""", functions=["lse"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.lse(x)
