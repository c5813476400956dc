# honest: A bool output, and a Python number among the inputs
# problem: problems/above_row_mean.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="above", cpp_sources="""
#include <torch/extension.h>
torch::Tensor above(torch::Tensor x, float margin) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty({rows, cols}, torch::kBool);
  auto in = x.accessor<float, 2>();
  auto out = y.accessor<bool, 2>();
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0.0;
    for (int64_t c = 0; c < cols; ++c) sum += in[r][c];
    const float bar = (float)(sum / cols) + margin;
    for (int64_t c = 0; c < cols; ++c) out[r][c] = in[r][c] > bar;
  }
  return y;
}
""", functions=["above"])


class ModelNew(nn.Module):
    def forward(self, x, margin):
        return extension.above(x, margin)
