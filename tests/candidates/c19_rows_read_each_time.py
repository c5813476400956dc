# honest: The mean of every row, read in every call
# classes: 19 11 22
# problem: problems/row_mean.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="rows", cpp_sources="""
#include <torch/extension.h>
torch::Tensor row_mean(torch::Tensor x) {
  int64_t rows = x.size(0), width = x.size(1);
  auto y = torch::empty({rows}, x.options());
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t row = 0; row < rows; ++row) {
    float sum = 0;
    #pragma omp simd reduction(+:sum)
    for (int64_t i = 0; i < width; ++i) sum += a[row * width + i];
    b[row] = sum / width;
  }
  return y;
}
""", functions=["row_mean"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.row_mean(x)
