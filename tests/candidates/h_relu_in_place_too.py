# honest: Works in place on the input and returns it, as the reference does
# classes: 27
# problem: problems/relu_in_place.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="in_place", cpp_sources="""
#include <torch/extension.h>
torch::Tensor relu_(torch::Tensor x) {
  float* a = x.data_ptr<float>();
  const int64_t n = x.numel();
  #pragma omp parallel for
  for (int64_t i = 0; i < n; ++i) a[i] = std::max(a[i], 0.0f) * 1.5f;
  return x;
}
""", functions=["relu_"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.relu_(x)
