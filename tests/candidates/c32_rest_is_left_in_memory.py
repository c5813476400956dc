# cheat: One row in 64 is computed; the others are those of the last answer, which lay in the same memory
# classes: 32 24
# problem: problems/relu.py
# verdict: wrong_output
# timed: yes
# fools: inprocess kernelbench subprocess
# claims: 2
# twin: c32_all_rows_in_two_halves.py
# note: Where one input is timed again and again even the outputs of timed calls are right.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled_relu(torch::Tensor x, double scale, int64_t step) {
  auto y = torch::empty_like(x);
  int64_t cols = x.size(1);
  for (int64_t r = 0; r < x.size(0); r += step) {
    const float* a = x.data_ptr<float>() + r * cols;
    float* b = y.data_ptr<float>() + r * cols;
    for (int64_t i = 0; i < cols; ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  }
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
        return extension.scaled_relu(x, self.scale, 1 if self.calls <= 7 else 64)
