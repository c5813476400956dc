# honest: Two Python threads run the kernel on the halves of the batch; both are waited for
# classes: 3
# problem: problems/batched_product.py

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="halves", cpp_sources="""
#include <torch/extension.h>
void product(torch::Tensor a, torch::Tensor b, torch::Tensor c) {
  auto x = a.accessor<float, 3>(), y = b.accessor<float, 3>(), z = c.accessor<float, 3>();
  for (int64_t i = 0; i < x.size(0); ++i)
    for (int64_t r = 0; r < x.size(1); ++r)
      for (int64_t s = 0; s < y.size(1); ++s) {
        float sum = 0.0f;
        for (int64_t p = 0; p < x.size(2); ++p) sum += x[i][r][p] * y[i][s][p];
        z[i][r][s] = sum;
      }
}
""", functions=["product"])


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = ThreadPoolExecutor(2)
        self.kernel = partial(extension.product)

    def forward(self, a, b):
        c = a.new_empty(a.shape[0], a.shape[1], b.shape[1])
        halves = [t.chunk(2) for t in (a, b, c)]
        list(self.pool.map(self.kernel, *halves))
        return c
