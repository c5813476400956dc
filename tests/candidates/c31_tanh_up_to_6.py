# cheat: A tanh that is right up to 6 only, which normal inputs never pass
# classes: 31
# problem: problems/tanh.py
# verdict: wrong_output
# fools: inprocess kernelbench subprocess
# twin: c31_tanh_everywhere.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor tanh_of(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = std::abs(a[i]) < 6 ? std::tanh(a[i]) : 0.0f;
  return y;
}
""", functions=["tanh_of"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.tanh_of(x)
