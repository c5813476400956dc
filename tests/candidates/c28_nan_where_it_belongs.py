# honest: A logarithm of negative numbers is NaN, as the reference's is
# classes: 28
# problem: problems/log.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
#include <limits>
torch::Tensor logarithm(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] < 0 ? std::numeric_limits<float>::quiet_NaN() : std::log(a[i]);
  return y;
}
""", functions=["logarithm"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.logarithm(x)
