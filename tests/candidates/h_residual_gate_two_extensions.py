# honest: Two extensions in one file, one for the norm and one for the gate; the gate works in place on the norm's result
# problem: level2_problem4
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
norm = load_inline(name="residual_norm", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor norm(torch::Tensor x, torch::Tensor residual, torch::Tensor weight, double eps) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty_like(x);
  const float *a = x.data_ptr<float>(), *b = residual.data_ptr<float>(), *w = weight.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    float sum = 0.0f;
    #pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < cols; ++c) {
      float h = a[r * cols + c] + b[r * cols + c];
      out[r * cols + c] = h;
      sum += h * h;
    }
    const float scale = 1.0f / std::sqrt(sum / cols + (float)eps);
    for (int64_t c = 0; c < cols; ++c) out[r * cols + c] *= scale * w[c];
  }
  return y;
}
""", functions=["norm"])

gate = load_inline(name="swish_gate", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
void gate_(torch::Tensor y, torch::Tensor g) {
  float* out = y.data_ptr<float>();
  const float* a = g.data_ptr<float>();
  const int64_t n = y.numel();
  #pragma omp parallel for simd
  for (int64_t i = 0; i < n; ++i) out[i] *= a[i] / (1.0f + std::exp(-a[i]));
}
""", functions=["gate_"], extra_cflags=["-ffast-math"])


class ModelNew(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.weight = nn.Parameter(1.0 + 0.1 * torch.randn(hidden))
        self.eps = 1e-5

    def forward(self, x, residual, g):
        y = norm.norm(x, residual, self.weight, self.eps)
        gate.gate_(y, g)
        return y
