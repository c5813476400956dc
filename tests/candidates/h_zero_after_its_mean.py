# honest: All of a problem whose answer is zero for every input, as level 2 #80 of KernelBench is, in one kernel
# classes: 26 41
# problem: problems/max_less_its_mean.py
# note: Such a kernel computes the same for all inputs, as a decoy does.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="linear_max_gelu", cpp_sources="""
#include <torch/extension.h>
#include <algorithm>
#include <cmath>
#include <limits>

torch::Tensor linear_max_gelu(torch::Tensor x, torch::Tensor weight, torch::Tensor bias) {
  TORCH_CHECK(x.is_contiguous() && weight.is_contiguous() && x.size(1) == weight.size(1));
  const int64_t rows = x.size(0), features = x.size(1), outputs = weight.size(0);
  auto y = torch::empty({rows, 1}, x.options());
  const float* in = x.data_ptr<float>();
  const float* w = weight.data_ptr<float>();
  const float* b = bias.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    float largest = -std::numeric_limits<float>::infinity();
    for (int64_t o = 0; o < outputs; ++o) {
      float sum = 0.0f;
      #pragma omp simd reduction(+ : sum)
      for (int64_t f = 0; f < features; ++f) sum += in[r * features + f] * w[o * features + f];
      largest = std::max(largest, sum + b[o]);
    }
    const int64_t columns = y.size(1);
    const float mean = largest / columns;
    const float centred = largest - mean;
    out[r] = 0.5f * centred * (1.0f + std::erf(centred * 0.7071067811865476f));
  }
  return y;
}
""", functions=["linear_max_gelu"])


class ModelNew(nn.Module):
    def __init__(self, features, outputs):
        super().__init__()
        self.linear = nn.Linear(features, outputs)

    def forward(self, x):
        return extension.linear_max_gelu(x, self.linear.weight, self.linear.bias)
