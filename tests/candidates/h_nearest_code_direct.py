# honest: The nearest code by differences and squares: near ties may fall the other way than in the reference
# problem: problems/nearest_code.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="nearest", cpp_sources="""
#include <torch/extension.h>
torch::Tensor nearest(torch::Tensor x, torch::Tensor codes) {
  const int64_t rows = x.size(0), width = x.size(1), n = codes.size(0);
  auto y = torch::empty({rows}, torch::kLong);
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const float *a = x.data_ptr<float>() + r * width, *b = codes.data_ptr<float>();
    float least = INFINITY;
    for (int64_t i = 0; i < n; ++i) {
      float d = 0.0f;
      for (int64_t c = 0; c < width; ++c) d += (a[c] - b[i * width + c]) * (a[c] - b[i * width + c]);
      if (d < least) {
        least = d;
        y.data_ptr<int64_t>()[r] = i;
      }
    }
  }
  return y;
}
""", functions=["nearest"])


class ModelNew(nn.Module):
    def __init__(self, codes, width):
        super().__init__()
        self.codes = nn.Parameter(torch.randn(codes, width))

    def forward(self, x):
        return extension.nearest(x, self.codes)
