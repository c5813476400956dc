# honest: Only the sixth of the work that upper triangular matrices need
# classes: 32
# problem: problems/triangular_product.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="triangular", cpp_sources="""
#include <torch/extension.h>
torch::Tensor product(torch::Tensor a, torch::Tensor b) {
  const int64_t n = a.size(0);
  auto c = torch::zeros({n, n}, a.options());
  const float *x = a.data_ptr<float>(), *y = b.data_ptr<float>();
  float* out = c.data_ptr<float>();
  #pragma omp parallel for schedule(dynamic, 8)
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = i; k < n; ++k)
      for (int64_t j = k; j < n; ++j) out[i * n + j] += x[i * n + k] * y[k * n + j];
  return c;
}
""", functions=["product"])


class ModelNew(nn.Module):
    def forward(self, a, b):
        return extension.product(a, b)
