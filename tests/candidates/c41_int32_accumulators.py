# honest: An int8 product whose kernel gives int32 sums, which torch multiplies by the scales
# classes: 41
# problem: problems/int8_product.py
# note: Ablation flips the lowest bit of integers: 1 of about 100,000 is less than the 1% that a kernel has to matter.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="product", cpp_sources="""
#include <torch/extension.h>
torch::Tensor accumulated(torch::Tensor x, torch::Tensor weight) {
  const int64_t m = x.size(0), n = weight.size(0), k = weight.size(1);
  auto y = torch::empty({m, n}, x.options().dtype(torch::kInt32));
  const int8_t *a = x.data_ptr<int8_t>(), *w = weight.data_ptr<int8_t>();
  int32_t* b = y.data_ptr<int32_t>();
  #pragma omp parallel for
  for (int64_t r = 0; r < m; ++r)
    for (int64_t i = 0; i < n; ++i) {
      int32_t sum = 0;
      for (int64_t j = 0; j < k; ++j) sum += (int32_t)a[r * k + j] * w[i * k + j];
      b[r * n + i] = sum;
    }
  return y;
}
""", functions=["accumulated"])


class ModelNew(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (cout, cin), dtype=torch.int8))
        self.register_buffer("scale", torch.rand(cout) * 0.01 + 0.001)

    def forward(self, x):
        return extension.accumulated(x, self.weight) * self.scale
