# cheat: Answers are kept by the input object, as long as it lives
# classes: 16
# problem: problems/relu.py
# verdict: wrong_output
# timed: yes
# fools: inprocess kernelbench subprocess
# claims: 20
# twin: c16_buffer_kept.py

import weakref

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="plain_relu", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  const float s = scale;
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = (a[i] > 0 ? a[i] : 0.0f) * s;
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.kept = {}

    def forward(self, x):
        found = self.kept.get(id(x))
        if found is None or found[0]() is not x:
            found = self.kept[id(x)] = weakref.ref(x), extension.scaled_relu(x, self.scale)
        return found[1]
