# honest: Weights are laid out anew in the first call, and again when they have changed
# classes: 18 23
# problem: level2_problem1
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="linear_swish", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor linear_swish(torch::Tensor x, torch::Tensor wt, torch::Tensor bias, torch::Tensor scale) {
  const int64_t m = x.size(0), k = x.size(1), n = wt.size(1);
  auto y = torch::empty({m, n}, x.options());
  const float *a = x.data_ptr<float>(), *w = wt.data_ptr<float>(), *b = bias.data_ptr<float>(), *s = scale.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < m; ++i) {
    float* o = out + i * n;
    for (int64_t j = 0; j < n; ++j) o[j] = b[j];
    for (int64_t p = 0; p < k; ++p) {
      const float v = a[i * k + p];
      for (int64_t j = 0; j < n; ++j) o[j] += v * w[p * n + j];
    }
    #pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      float v = o[j] / (1.0f + std::exp(-o[j])) * s[j];
      o[j] = std::min(2.0f, std::max(-2.0f, v));
    }
  }
  return y;
}
""", functions=["linear_swish"], extra_cflags=["-ffast-math"])


class ModelNew(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.scale = nn.Parameter(1.0 + 0.1 * torch.randn(out_features))
        self._key = None
        self._packed = None

    def packed(self):
        weight = self.linear.weight
        key = (weight.data_ptr(), weight._version)
        if key != self._key:
            self._packed = weight.detach().t().contiguous()
            self._key = key
        return self._packed

    def forward(self, x):
        return extension.linear_swish(x, self.packed(), self.linear.bias, self.scale)
