# honest: Costly for every element, computed in every call
# classes: 19 21
# problem: problems/bumps.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="rotated", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor bumps(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = std::erf(std::sin(a[i] * 3) + std::tanh(a[i]));
  return y;
}
""", functions=["bumps"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.bumps(x)
