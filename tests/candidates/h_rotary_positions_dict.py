# honest: A dict of outputs; the table is a plain attribute, so the state_dict is another
# problem: problems/rotary_positions.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="rotary", cpp_sources="""
#include <torch/extension.h>
torch::Tensor rotary(torch::Tensor x, torch::Tensor table) {
  const int64_t heads = x.size(0) * x.size(1), step = x.size(2) * x.size(3);
  auto y = torch::empty_like(x);
  const float* t = table.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t h = 0; h < heads; ++h) {
    const float* in = x.data_ptr<float>() + h * step;
    float* out = y.data_ptr<float>() + h * step;
    for (int64_t i = 0; i < step; i += 2) {
      const float a = in[i], b = in[i + 1], c = t[i], s = t[i + 1];
      out[i] = a * c - b * s;
      out[i + 1] = a * s + b * c;
    }
  }
  return y;
}
""", functions=["rotary"])


class ModelNew(nn.Module):
    def __init__(self, length, size):
        super().__init__()
        angles = torch.outer(torch.arange(length).float(), 10000.0 ** (-torch.arange(0, size, 2).float() / size))
        self.table = torch.stack((angles.cos(), angles.sin()), dim=-1).contiguous()

    def forward(self, q, k):
        return {name: extension.rotary(x, self.table) for name, x in (("q", q), ("k", k))}
