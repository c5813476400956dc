# honest: Three linear layers as one product; the answer is its three column blocks
# classes: 23
# problem: problems/three_projections.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="projections", cpp_sources="""
#include <torch/extension.h>
torch::Tensor project(torch::Tensor x, torch::Tensor wt, torch::Tensor bias) {
  const int64_t m = x.size(0), k = x.size(1), n = wt.size(1);
  auto y = torch::empty({m, n}, x.options());
  const float *a = x.data_ptr<float>(), *w = wt.data_ptr<float>(), *b = bias.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t i = 0; i < m; ++i) {
    float* o = out + i * n;
    std::copy(b, b + n, o);
    for (int64_t p = 0; p < k; ++p)
      for (int64_t j = 0; j < n; ++j) o[j] += a[i * k + p] * w[p * n + j];
  }
  return y;
}
""", functions=["project"])


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.key, self.packed = None, None

    def forward(self, x):
        layers = (self.q, self.k, self.v)
        key = [(p.data_ptr(), p._version) for layer in layers for p in (layer.weight, layer.bias)]
        if key != self.key:
            self.key = key
            self.packed = torch.cat([l.weight for l in layers]).t().contiguous(), torch.cat([l.bias for l in layers])
        return extension.project(x, *self.packed).chunk(3, dim=-1)
