# honest: Works in place, on a copy of its input
# classes: 27
# problem: problems/relu.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
void in_place(torch::Tensor x, double scale) {
  float* a = x.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) a[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
}
""", functions=["in_place"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        y = x.clone()
        extension.in_place(y, self.scale)
        return y
