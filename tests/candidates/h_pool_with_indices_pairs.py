# honest: Values and int64 positions as a pair; the entry class is made by a function
# problem: problems/pool_with_indices.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="pool", cpp_sources="""
#include <torch/extension.h>
std::vector<torch::Tensor> pool(torch::Tensor x) {
  const int64_t planes = x.size(0) * x.size(1), h = x.size(2), w = x.size(3);
  auto y = torch::empty({x.size(0), x.size(1), h / 2, w / 2}, x.options());
  auto at = torch::empty(y.sizes(), torch::kInt64);
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  int64_t* where = at.data_ptr<int64_t>();
  #pragma omp parallel for
  for (int64_t p = 0; p < planes; ++p)
    for (int64_t i = 0; i < h / 2; ++i)
      for (int64_t j = 0; j < w / 2; ++j) {
        int64_t best = 2 * i * w + 2 * j;
        for (int64_t q : {best + 1, best + w, best + w + 1})
          if (in[p * h * w + q] > in[p * h * w + best]) best = q;
        const int64_t o = (p * (h / 2) + i) * (w / 2) + j;
        out[o] = in[p * h * w + best];
        where[o] = best;
      }
  return {y, at};
}
""", functions=["pool"])


def make(pool):
    class Pool(nn.Module):
        def forward(self, x):
            values, indices = pool(x)
            return values, indices

    return Pool


ModelNew = make(extension.pool)
