# honest: A loop of its own in an operator that the extension registers
# classes: 44
# problem: problems/relu.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <torch/library.h>
at::Tensor scaled_relu(const at::Tensor& x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  return y;
}
TORCH_LIBRARY(home_made, m) {
  m.def("scaled_relu(Tensor x, float scale) -> Tensor");
}
TORCH_LIBRARY_IMPL(home_made, CPU, m) {
  m.impl("scaled_relu", &scaled_relu);
}
""", is_python_module=False)


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return torch.ops.home_made.scaled_relu(x, self.scale)
