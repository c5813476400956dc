# honest: Sends a harmless signal to itself, and handles it
# classes: 51
# problem: problems/relu.py
# timed: yes

import os
import signal
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.seen = []
        signal.signal(signal.SIGUSR1, lambda *arguments: self.seen.append(1))
        signal.raise_signal(signal.SIGUSR1)
        assert self.seen

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
