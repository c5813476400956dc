# honest: Other random weights than the reference's, which are loaded by name later; the packed copy follows them
# classes: 18 23
# problem: level2_problem1

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="linear_swish_own", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor linear_swish(torch::Tensor x, torch::Tensor packed) {
  // packed: in_features rows of weights, then the bias, then the scale
  const int64_t m = x.size(0), k = x.size(1), n = packed.size(1);
  auto y = torch::empty({m, n}, x.options());
  auto a = x.accessor<float, 2>();
  auto w = packed.accessor<float, 2>();
  auto out = y.accessor<float, 2>();
  #pragma omp parallel for
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      float sum = w[k][j];
      for (int64_t p = 0; p < k; ++p) sum += a[i][p] * w[p][j];
      sum = sum / (1.0f + std::exp(-sum)) * w[k + 1][j];
      out[i][j] = std::clamp(sum, -2.0f, 2.0f);
    }
  return y;
}
""", functions=["linear_swish"])


class ModelNew(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.scale = nn.Parameter(torch.empty(out_features))
        self.linear = nn.Linear(in_features, out_features, bias=True)
        nn.init.uniform_(self.scale)
        self.cache = {}

    def forward(self, x):
        parts = (self.linear.weight, self.linear.bias, self.scale)
        key = tuple((p._version, p.data_ptr()) for p in parts)
        if key not in self.cache:
            self.cache.clear()
            weight, bias, scale = (p.detach() for p in parts)
            self.cache[key] = torch.cat([weight.t(), bias[None], scale[None]])
        return extension.linear_swish(x, self.cache[key])
