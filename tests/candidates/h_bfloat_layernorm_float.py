# honest: bfloat16 in and out, single precision between
# classes: 29
# problem: problems/bfloat_layernorm.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="bf16_norm", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
using bf16 = at::BFloat16;
torch::Tensor norm(torch::Tensor x, torch::Tensor weight, torch::Tensor bias) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty_like(x);
  const bf16 *in = x.data_ptr<bf16>(), *w = weight.data_ptr<bf16>(), *b = bias.data_ptr<bf16>();
  bf16* out = y.data_ptr<bf16>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const bf16* a = in + r * cols;
    float sum = 0.0f, square = 0.0f;
    for (int64_t c = 0; c < cols; ++c) sum += (float)a[c];
    const float mean = sum / cols;
    for (int64_t c = 0; c < cols; ++c) square += ((float)a[c] - mean) * ((float)a[c] - mean);
    const float scale = 1.0f / std::sqrt(square / cols + 1e-5f);
    for (int64_t c = 0; c < cols; ++c) out[r * cols + c] = ((float)a[c] - mean) * scale * (float)w[c] + (float)b[c];
  }
  return y;
}
""", functions=["norm"])


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter((1.0 + 0.2 * torch.randn(width)).bfloat16())
        self.bias = nn.Parameter((0.2 * torch.randn(width)).bfloat16())

    def forward(self, x):
        return extension.norm(x, self.weight, self.bias)
