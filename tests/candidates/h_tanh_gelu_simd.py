# honest: GELU in one pass, vectorised by the compiler under -ffast-math
# problem: level1_problem1
# least_speedup: 1.5

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
SOURCE = """
#include <torch/extension.h>
#include <cmath>
torch::Tensor gelu(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  const int64_t n = x.numel();
  #pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    float v = in[i];
    float inner = 0.7978845608028654f * (v + 0.044715f * v * v * v);
    // tanh(z) = 1 - 2 / (exp(2z) + 1); beyond 20 it is 1
    out[i] = v * (1.0f - 1.0f / (std::exp(2.0f * std::min(inner, 20.0f)) + 1.0f));
  }
  return y;
}
"""
extension = load_inline(
    name="gelu", cpp_sources=SOURCE, functions=["gelu"], extra_cflags=["-O3", "-ffast-math", "-fopenmp"], extra_ldflags=["-lgomp"]
)


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.gelu(x)
