# honest: Half precision in and out, single precision between
# classes: 25 29
# problem: problems/half_softmax.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="half_softmax", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor softmax(torch::Tensor x) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty_like(x);
  const at::Half* in = x.data_ptr<at::Half>();
  at::Half* out = y.data_ptr<at::Half>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    thread_local std::vector<float> e;
    e.resize(cols);
    float most = -65504.0f, sum = 0.0f;
    for (int64_t c = 0; c < cols; ++c) most = std::max(most, e[c] = in[r * cols + c]);
    for (int64_t c = 0; c < cols; ++c) sum += e[c] = std::exp(e[c] - most);
    for (int64_t c = 0; c < cols; ++c) out[r * cols + c] = e[c] / sum;
  }
  return y;
}
""", functions=["softmax"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.softmax(x)
