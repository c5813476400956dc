# honest: A wide product, computed in every call
# classes: 21 32
# problem: problems/wide_product.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="product", cpp_sources="""
#include <torch/extension.h>
torch::Tensor product(torch::Tensor a, torch::Tensor b) {
  const int64_t rows = a.size(0), inner = a.size(1), columns = b.size(1);
  auto y = torch::empty({rows, columns}, a.options());
  const float* p = a.data_ptr<float>();
  const float* q = b.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    float* c = out + r * columns;
    for (int64_t j = 0; j < columns; ++j) c[j] = 0.0f;
    for (int64_t k = 0; k < inner; ++k) {
      const float f = p[r * inner + k];
      for (int64_t j = 0; j < columns; ++j) c[j] += f * q[k * columns + j];
    }
  }
  return y;
}
""", functions=["product"])


class ModelNew(nn.Module):
    def forward(self, a, b):
        return extension.product(a.contiguous(), b.contiguous())
