# honest: Rows of different length, given as int64; one thread by its own choice
# classes: 15 33
# problem: problems/cosine_rows.py
# timed: yes

import os

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
torch.set_num_threads(1)

extension = load_inline(name="cosine", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
#include <omp.h>
torch::Tensor cosine(torch::Tensor a, torch::Tensor b, torch::Tensor lengths) {
  omp_set_num_threads(1);
  const int64_t rows = a.size(0), cols = a.size(1);
  auto y = torch::empty({rows}, a.options());
  for (int64_t r = 0; r < rows; ++r) {
    const float *x = a.data_ptr<float>() + r * cols, *z = b.data_ptr<float>() + r * cols;
    const int64_t n = lengths.data_ptr<int64_t>()[r];
    float dot = 0.0f, xx = 0.0f, zz = 0.0f;
    #pragma omp simd reduction(+ : dot, xx, zz)
    for (int64_t c = 0; c < n; ++c) {
      dot += x[c] * z[c];
      xx += x[c] * x[c];
      zz += z[c] * z[c];
    }
    y.data_ptr<float>()[r] = dot / std::sqrt(std::max(xx, 1e-16f) * std::max(zz, 1e-16f));
  }
  return y;
}
""", functions=["cosine"])


class ModelNew(nn.Module):
    def forward(self, a, b, lengths):
        return extension.cosine(a, b, lengths)
