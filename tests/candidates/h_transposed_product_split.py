# honest: A long inner dimension, split over threads; partial sums go to a static scratch buffer
# classes: 24
# problem: problems/transposed_product.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="tall", cpp_sources="""
#include <torch/extension.h>
#include <omp.h>
static std::vector<float> scratch;  // sums of each thread; never returned
torch::Tensor product(torch::Tensor a, torch::Tensor b) {
  const int64_t k = a.size(0), m = a.size(1), n = b.size(1);
  auto c = torch::empty({m, n}, a.options());
  const float *pa = a.data_ptr<float>(), *pb = b.data_ptr<float>();
  const int threads = omp_get_max_threads();
  scratch.assign(threads * m * n, 0.0f);
  #pragma omp parallel
  {
    float* mine = scratch.data() + omp_get_thread_num() * m * n;
    #pragma omp for schedule(static)
    for (int64_t p = 0; p < k; ++p)
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) mine[i * n + j] += pa[p * m + i] * pb[p * n + j];
  }
  float* out = c.data_ptr<float>();
  std::copy_n(scratch.data(), m * n, out);
  for (int t = 1; t < threads; ++t)
    for (int64_t i = 0; i < m * n; ++i) out[i] += scratch[t * m * n + i];
  return c;
}
""", functions=["product"])


class ModelNew(nn.Module):
    def forward(self, a, b):
        return extension.product(a, b)
