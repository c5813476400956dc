# honest: Leaves alone the input that the reference changes, and returns new memory
# classes: 27
# problem: problems/relu_in_place.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="out_of_place", cpp_sources="""
#include <torch/extension.h>
torch::Tensor relu(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  const int64_t n = x.numel();
  #pragma omp parallel for
  for (int64_t i = 0; i < n; ++i) out[i] = std::max(a[i], 0.0f) * 1.5f;
  return y;
}
""", functions=["relu"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.relu(x)
