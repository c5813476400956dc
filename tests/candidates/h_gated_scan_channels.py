# honest: The recurrence in C++, vectorised over channels: the reference is a loop in Python
# problem: level3_problem3
# least_speedup: 2

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="gated_scan", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor scan(torch::Tensor x, torch::Tensor forget, torch::Tensor bias) {
  const int64_t batch = x.size(0), steps = x.size(1), channels = x.size(2);
  auto y = torch::empty_like(x);
  const float *in = x.data_ptr<float>(), *fo = forget.data_ptr<float>(), *b = bias.data_ptr<float>();
  float* out = y.data_ptr<float>();
  constexpr int64_t LANES = 512;
  #pragma omp parallel for collapse(2)
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t c0 = 0; c0 < channels; c0 += LANES) {
      const int64_t width = std::min(LANES, channels - c0);
      float h[LANES] = {};
      for (int64_t t = 0; t < steps; ++t) {
        const int64_t at = (n * steps + t) * channels + c0;
        #pragma omp simd
        for (int64_t c = 0; c < width; ++c) {
          float f = 1.0f / (1.0f + std::exp(-(fo[at + c] + b[c0 + c])));
          h[c] = f * h[c] + (1.0f - f) * in[at + c];
          out[at + c] = 1.0f - 2.0f / (std::exp(2.0f * std::min(h[c], 20.0f)) + 1.0f);
        }
      }
    }
  return y;
}
""", functions=["scan"], extra_cflags=["-O3", "-ffast-math"])


class ModelNew(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(channels))

    def forward(self, x, forget):
        return extension.scan(x, forget, self.bias)
