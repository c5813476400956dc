# honest: A dict with the reference's keys, in another order
# problem: problems/rotary_positions.py
# timed: yes
# note: Dicts are equal whatever their order.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="rotary_rows", cpp_sources="""
#include <torch/extension.h>
torch::Tensor rotate(torch::Tensor x, torch::Tensor cos, torch::Tensor sin) {
  TORCH_CHECK(x.is_contiguous() && cos.is_contiguous() && sin.is_contiguous() && x.size(3) == 2 * cos.size(1));
  const int64_t rows = x.size(0) * x.size(1) * x.size(2), length = x.size(2), half = cos.size(1);
  auto y = torch::empty_like(x);
  const float* in = x.data_ptr<float>();
  const float* c = cos.data_ptr<float>();
  const float* s = sin.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t t = r % length * half;
    for (int64_t i = 0; i < half; ++i) {
      const float a = in[2 * (r * half + i)], b = in[2 * (r * half + i) + 1];
      out[2 * (r * half + i)] = a * c[t + i] - b * s[t + i];
      out[2 * (r * half + i) + 1] = a * s[t + i] + b * c[t + i];
    }
  }
  return y;
}
""", functions=["rotate"])


class ModelNew(nn.Module):
    def __init__(self, length, size):
        super().__init__()
        angles = torch.outer(torch.arange(length).float(), 10000.0 ** (-torch.arange(0, size, 2).float() / size))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, q, k):
        # keys come first: a decoder appends them to its cache before it needs the queries
        return {"k": extension.rotate(k, self.cos, self.sin), "q": extension.rotate(q, self.cos, self.sin)}
