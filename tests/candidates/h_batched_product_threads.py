# honest: A thread of its own for each half of the batch, both joined before it returns
# classes: 3
# problem: problems/batched_product.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="batched", cpp_sources="""
#include <torch/extension.h>
#include <thread>
static void members(const float* a, const float* b, float* c, int64_t count, int64_t m, int64_t n, int64_t k) {
  for (int64_t i = 0; i < count; ++i, a += m * k, b += n * k, c += m * n)
    for (int64_t r = 0; r < m; ++r)
      for (int64_t s = 0; s < n; ++s) {
        float sum = 0.0f;
        #pragma omp simd reduction(+ : sum)
        for (int64_t p = 0; p < k; ++p) sum += a[r * k + p] * b[s * k + p];
        c[r * n + s] = sum;
      }
}
torch::Tensor product(torch::Tensor a, torch::Tensor b) {
  const int64_t batch = a.size(0), m = a.size(1), k = a.size(2), n = b.size(1), half = batch / 2;
  auto c = torch::empty({batch, m, n}, a.options());
  const float *pa = a.data_ptr<float>(), *pb = b.data_ptr<float>();
  float* pc = c.data_ptr<float>();
  std::thread first(members, pa, pb, pc, half, m, n, k);
  std::thread second(members, pa + half * m * k, pb + half * n * k, pc + half * m * n, batch - half, m, n, k);
  first.join();
  second.join();
  return c;
}
""", functions=["product"], extra_cflags=["-O3", "-pthread"], extra_ldflags=["-lpthread"])


class ModelNew(nn.Module):
    def forward(self, a, b):
        return extension.product(a, b)
