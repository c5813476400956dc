# honest: Reads a transposed input by its strides, and answers with a transposed view of its own output
# problem: problems/strided_rows.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="strided", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor bell(torch::Tensor x) {
  TORCH_CHECK(x.dim() == 2 && x.stride(0) == 1, "made for a transposed matrix, got strides ", x.strides());
  const int64_t rows = x.size(1), cols = x.size(0), step = x.stride(1);
  auto y = torch::empty({rows, cols}, x.options());
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) out[r * cols + c] = std::exp(-in[r * step + c] * in[r * step + c]);
  return y.t();
}
""", functions=["bell"], extra_cflags=["-ffast-math"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.bell(x)
