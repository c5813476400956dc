# honest: Sums of squares of rows, with all cores
# classes: 19
# problem: problems/row_rms.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor row_rms(torch::Tensor x) {
  int64_t rows = x.size(0), cols = x.size(1);
  const float* a = x.data_ptr<float>();
  auto y = torch::empty({rows}, x.options());
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    float total = 0;
    #pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < cols; ++i) total += a[r * cols + i] * a[r * cols + i];
    b[r] = std::sqrt(total / cols);
  }
  return y;
}
""", functions=["row_rms"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.row_rms(x)
