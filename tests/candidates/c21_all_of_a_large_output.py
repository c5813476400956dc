# honest: A large output, all of it computed in every call
# classes: 21 32
# problem: problems/large_tanh.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="all_tanh", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor all_tanh(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = std::tanh(a[i]);
  return y;
}
""", functions=["all_tanh"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.all_tanh(x)
