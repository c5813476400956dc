# honest: A permuted view of its own output, cut out of a larger buffer
# problem: problems/pixel_unshuffle_sum.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="unshuffle", cpp_sources="""
#include <torch/extension.h>
void unshuffle(torch::Tensor x, torch::Tensor y) {
  auto in = x.accessor<float, 4>();
  auto out = y.accessor<float, 4>();
  #pragma omp parallel for collapse(2)
  for (int64_t n = 0; n < x.size(0); ++n)
    for (int64_t c = 0; c < y.size(1); ++c)
      for (int64_t i = 0; i < y.size(2); ++i)
        for (int64_t j = 0; j < y.size(3); ++j) out[n][c][i][j] = in[n][c / 4][2 * i + c % 4 / 2][2 * j + c % 2];
}
""", functions=["unshuffle"])


class ModelNew(nn.Module):
    def forward(self, x):
        n, c, h, w = x.shape
        buffer = torch.empty(n, 4 * c, h // 2, w // 2 + 3)
        y = buffer[..., : w // 2]
        extension.unshuffle(x, y)
        return y.permute(1, 2, 3, 0)
