# honest: A matrix times a vector, a row at a time, with OpenMP
# classes: 15
# problem: problems/linear.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor product(torch::Tensor x, torch::Tensor w) {
  const int64_t rows = w.size(0), cols = w.size(1);
  auto y = torch::empty({1, rows}, x.options());
  const float *a = x.data_ptr<float>(), *all = w.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = all + r * cols;
    float total = 0;
    #pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < cols; ++i) total += row[i] * a[i];
    b[r] = total;
  }
  return y;
}
""", functions=["product"])


class ModelNew(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)

    def forward(self, x):
        return extension.product(x, self.linear.weight)
