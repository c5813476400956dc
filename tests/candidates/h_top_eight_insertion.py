# honest: The reference returns a named tuple; a plain tuple answers it
# problem: problems/top_eight.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="top", cpp_sources="""
#include <torch/extension.h>
template <int K>
static void top(const float* a, int64_t n, float* values, int64_t* indices) {
  std::fill(values, values + K, -INFINITY);
  for (int64_t c = 0; c < n; ++c) {
    if (!(a[c] > values[K - 1])) continue;
    int at = K - 1;
    for (; at > 0 && values[at - 1] < a[c]; --at) {
      values[at] = values[at - 1];
      indices[at] = indices[at - 1];
    }
    values[at] = a[c];
    indices[at] = c;
  }
}
std::tuple<torch::Tensor, torch::Tensor> top_eight(torch::Tensor x) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto values = torch::empty({rows, 8}, x.options());
  auto indices = torch::empty({rows, 8}, torch::kLong);
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r)
    top<8>(x.data_ptr<float>() + r * cols, cols, values.data_ptr<float>() + 8 * r, indices.data_ptr<int64_t>() + 8 * r);
  return std::make_tuple(values, indices);
}
""", functions=["top_eight"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.top_eight(x)
