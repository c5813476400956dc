# honest: A scan from the end in single precision, four rows side by side
# classes: 29
# problem: problems/reverse_cumsum.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="suffix32", cpp_sources="""
#include <torch/extension.h>
torch::Tensor suffix_sums(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const int64_t rows = x.size(0), cols = x.size(1);
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; r += 4) {
    float sum[4] = {};
    for (int64_t c = cols; c-- > 0;)
      for (int64_t i = 0; i < 4; ++i) out[(r + i) * cols + c] = sum[i] += in[(r + i) * cols + c];
  }
  return y;
}
""", functions=["suffix_sums"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.suffix_sums(x)
