# honest: A product that reads int8 weights as they are
# problem: problems/int8_weights.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="int8_linear", cpp_sources="""
#include <torch/extension.h>
torch::Tensor linear(torch::Tensor x, torch::Tensor w, torch::Tensor scale) {
  const int64_t m = x.size(0), k = x.size(1), n = w.size(0);
  auto y = torch::empty({m, n}, x.options());
  const float* a = x.data_ptr<float>();
  const int8_t* b = w.data_ptr<int8_t>();
  #pragma omp parallel for
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0.0f;
      #pragma omp simd reduction(+ : sum)
      for (int64_t p = 0; p < k; ++p) sum += a[i * k + p] * (float)b[j * k + p];
      y.data_ptr<float>()[i * n + j] = sum * scale.data_ptr<float>()[j];
    }
  return y;
}
""", functions=["linear"])


class ModelNew(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (cout, cin), dtype=torch.int8))
        self.register_buffer("scale", torch.rand(cout) * 0.01 + 0.001)

    def forward(self, x):
        return extension.linear(x, self.weight, self.scale)
