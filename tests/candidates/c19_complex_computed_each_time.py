# honest: The exponential of complex numbers, computed in every call
# classes: 19 21
# problem: problems/complex_exp.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="complex_exp", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor complex_exp(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* a = reinterpret_cast<const float*>(x.data_ptr());
  float* b = reinterpret_cast<float*>(y.data_ptr());
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) {
    const float size = std::exp(a[2 * i]);
    b[2 * i] = size * std::cos(a[2 * i + 1]);
    b[2 * i + 1] = size * std::sin(a[2 * i + 1]);
  }
  return y;
}
""", functions=["complex_exp"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.complex_exp(x)
