# honest: Means of many numbers, added up in single precision
# classes: 26 32
# problem: problems/mean_of_many.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor mean(torch::Tensor x) {
  int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty({rows}, x.options());
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    float total = 0;
    #pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < cols; ++i) total += a[r * cols + i];
    b[r] = total / cols;
  }
  return y;
}
""", functions=["mean"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.mean(x)
