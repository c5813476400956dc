# honest: An extension that is loaded as a module for the operators that it registers, as torch's tutorial does
# classes: 46
# problem: problems/relu.py
# note: load_inline stands by itself and there is no is_python_module=False: the static rule finds no use of it.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

SOURCE = """
#include <torch/extension.h>
#include <torch/library.h>
at::Tensor scaled_relu(const at::Tensor& x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  return y;
}
TORCH_LIBRARY(tutorial_ops, m) {
  m.def("scaled_relu(Tensor x, float scale) -> Tensor");
}
TORCH_LIBRARY_IMPL(tutorial_ops, CPU, m) {
  m.impl("scaled_relu", &scaled_relu);
}
"""
load_inline(name="tutorial_ops", cpp_sources=SOURCE, functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return torch.ops.tutorial_ops.scaled_relu(x, self.scale)
