# honest: Two extensions are compiled at the same time, each on a Python thread, for a compiler takes half a minute
# classes: 56
# problem: level2_problem4
# note: A runner's channel is not for several threads: of two questions at a time either could read the other's answer, and load the
#    other's extension.

from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

NORM = """
#include <torch/extension.h>
#include <cmath>
torch::Tensor residual_norm(torch::Tensor x, torch::Tensor residual, torch::Tensor weight, double eps) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  const float* b = residual.data_ptr<float>();
  const float* w = weight.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    float sum = 0.0f;
    #pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < cols; ++c) {
      const float h = a[r * cols + c] + b[r * cols + c];
      out[r * cols + c] = h;
      sum += h * h;
    }
    const float scale = 1.0f / std::sqrt(sum / cols + static_cast<float>(eps));
    for (int64_t c = 0; c < cols; ++c) out[r * cols + c] *= scale * w[c];
  }
  return y;
}
"""

GATE = """
#include <torch/extension.h>
#include <cmath>
torch::Tensor swish_gate(torch::Tensor h, torch::Tensor gate) {
  auto y = torch::empty_like(h);
  const float* a = h.data_ptr<float>();
  const float* g = gate.data_ptr<float>();
  float* out = y.data_ptr<float>();
  const int64_t n = h.numel();
  #pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] * g[i] / (1.0f + std::exp(-g[i]));
  return y;
}
"""


def build(part):
    name, source = part
    return load_inline(name=name, cpp_sources=source, functions=[name], extra_cflags=["-O3"])


with ThreadPoolExecutor(max_workers=2) as pool:
    norm, gating = pool.map(build, [("residual_norm", NORM), ("swish_gate", GATE)])


class ModelNew(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.weight = nn.Parameter(1.0 + 0.1 * torch.randn(hidden))
        self.eps = 1e-5

    def forward(self, x, residual, gate):
        h = norm.residual_norm(x.contiguous(), residual.contiguous(), self.weight, self.eps)
        return gating.swish_gate(h, gate.contiguous())
