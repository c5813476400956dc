# cheat: Half of the rows, once the first calls are over
# classes: 32 21
# problem: problems/relu.py
# verdict: wrong_output
# timed: yes
# fools: inprocess kernelbench subprocess
# twin: c32_all_rows_in_two_halves.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled_relu(torch::Tensor x, double scale, int64_t rows) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  int64_t n = rows * x.size(1);
  for (int64_t i = 0; i < n; ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        rows = x.shape[0] if self.calls <= 7 else x.shape[0] // 2
        return extension.scaled_relu(x, self.scale, rows)
