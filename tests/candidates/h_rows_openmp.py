# honest: The same with OpenMP: a call of 0.5 ms whose worker still spins when the referee reads its CPU time
# classes: 58
# problem: problems/rows_in_a_loop.py
# timed: yes
# twin: h_rows_one_thread.py
# note: Should read about 1.8 times as fast as its twin, h_rows_one_thread; suspected to read about as fast as it or slower. On this
#    Xeon 5,000 spins are about 0.25 ms (a `pause` is 140 cycles; 0.07 ms are those of an EPYC), so the worker goes to sleep after
#    `Session._message` has read `cpu_s`. The kernel books it only then, or at a tick (250 a second): all that it did WITHIN the call
#    counts as work before the next one. The reference has no such thread, so `usual_s` is about 0: some 0.5 ms are charged.

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
