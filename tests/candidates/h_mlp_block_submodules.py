# honest: Own layer norm, GELU and residual around torch's two products, in modules of its own
# classes: 44
# problem: level3_problem2
# timed: yes

import functools

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.cpp_extension import load_inline

SOURCE = """
#include <torch/extension.h>
#include <cmath>
torch::Tensor layer_norm(torch::Tensor x, torch::Tensor weight, torch::Tensor bias, double eps) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty_like(x);
  const float *in = x.data_ptr<float>(), *w = weight.data_ptr<float>(), *b = bias.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = in + r * cols;
    float sum = 0.0f, square = 0.0f;
    for (int64_t c = 0; c < cols; ++c) sum += a[c];
    const float mean = sum / cols;
    for (int64_t c = 0; c < cols; ++c) square += (a[c] - mean) * (a[c] - mean);
    const float scale = 1.0f / std::sqrt(square / cols + (float)eps);
    for (int64_t c = 0; c < cols; ++c) out[r * cols + c] = (a[c] - mean) * scale * w[c] + b[c];
  }
  return y;
}
torch::Tensor gelu_(torch::Tensor x) {
  float* a = x.data_ptr<float>();
  #pragma omp parallel for simd
  for (int64_t i = 0; i < x.numel(); ++i) {
    float v = a[i], z = 1.5957691216057308f * (v + 0.044715f * v * v * v);
    a[i] = v / (1.0f + std::exp(-z));
  }
  return x;
}
"""


@functools.lru_cache(maxsize=None)
def extension():
    return load_inline("mlp_parts", SOURCE,
                       functions=["layer_norm", "gelu_"], extra_cflags=["-O3", "-ffast-math"])


class Norm(nn.LayerNorm):
    def forward(self, x):
        return extension().layer_norm(x, self.weight, self.bias, self.eps)


class ModelNew(nn.Module):
    def __init__(self, hidden, expansion):
        super().__init__()
        self.norm = Norm(hidden)
        self.expand = nn.Linear(hidden, expansion)
        self.project = nn.Linear(expansion, hidden)

    @staticmethod
    def activated(y):
        return extension().gelu_(y)

    def forward(self, x):
        y = self.activated(self.expand(self.norm(x)))
        return torch.addmm(x + self.project.bias, y, self.project.weight.t())
