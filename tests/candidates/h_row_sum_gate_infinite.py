# honest: Elements on a threshold decide between a number and minus infinity, in an output of more than 8 MB
# classes: 28
# problem: problems/row_sum_gate.py
# timed: yes
# note: Sums differ in their last bits, so that a few elements a call are on the other side of the threshold. In timed calls a part of
#    a large output is compared first, and where an element of it is infinite by mistake the category is `nonfinite`, of which no other
#    answers of the reference were asked. (With sums in single precision, eight lanes, it differs more than by what those allow.)

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <limits>
torch::Tensor gate(torch::Tensor x) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty_like(x);
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = in + r * cols;
    double lanes[8] = {0}, sum = 0;
    for (int64_t c = 0; c < cols; c += 8)
      for (int64_t l = 0; l < 8; ++l) lanes[l] += a[c + l];
    for (double lane : lanes) sum += lane;
    const float bar = (float)sum - 1279.5f;
    for (int64_t c = 0; c < cols; ++c) out[r * cols + c] = a[c] > bar ? 2.0f * a[c] : -std::numeric_limits<float>::infinity();
  }
  return y;
}
""", functions=["gate"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.gate(x)
