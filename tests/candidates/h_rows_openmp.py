# honest: The same with OpenMP: a call of 0.5 ms whose worker still spins when the referee reads its CPU time
# classes: 58
# problem: problems/rows_in_a_loop.py
# timed: yes
# twin: h_rows_one_thread.py
# note: Its worker looks for work for 0.1 ms after each call, while the referee reads what its threads have used: what it did
#    within the call must not count as work outside. The reference has no such thread.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="rows_openmp", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor rows(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const int64_t count = x.size(0), width = x.size(1);
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < count; ++r) {
    const float* a = in + r * width;
    float* b = out + r * width;
    float mean = 0;
    for (int64_t i = 0; i < width; ++i) mean += a[i];
    mean /= width;
    for (int64_t i = 0; i < width; ++i) {
      const float c = a[i] - mean;
      b[i] = std::erf(c) * std::exp(-c * c) + std::sin(c);
    }
  }
  return y;
}
""", functions=["rows"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.rows(x)
