# honest: Looks at its own frames, objects and memory map, and computes
# classes: 35 36
# problem: problems/relu.py
# timed: yes

import gc
import sys
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
        gc.collect()
        self.others = sum(type(o) is nn.ReLU for o in gc.get_objects())
        with open("/proc/self/maps") as maps:
            self.extensions = sum(".so" in line for line in maps)

    def forward(self, x):
        assert sys._getframe().f_locals["x"] is x
        return extension.scaled_relu(x, self.scale)
