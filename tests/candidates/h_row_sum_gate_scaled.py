# honest: Elements on a threshold, where inputs were drawn and then scaled
# problem: problems/row_sum_gate_scaled.py
# note: Sums differ in their last bits, so that a few elements a call are on the other side of the threshold. The reference's other
#    answers excuse them, although a tensor that is torch.rand(...) * 2 is not drawn plainly.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor gate(torch::Tensor x) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty({rows, cols}, x.options().dtype(torch::kBool));
  const float* in = x.data_ptr<float>();
  bool* out = y.data_ptr<bool>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = in + r * cols;
    double lanes[8] = {0}, sum = 0;
    for (int64_t c = 0; c < cols; c += 8)
      for (int64_t l = 0; l < 8; ++l) lanes[l] += a[c + l];
    for (double lane : lanes) sum += lane;
    const float bar = (float)sum - 2559.0f;
    for (int64_t c = 0; c < cols; ++c) out[r * cols + c] = a[c] > bar;
  }
  return y;
}
""", functions=["gate"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.gate(x)
