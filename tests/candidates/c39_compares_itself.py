# honest: Compares its own result with torch's when the model is made, with functions of torch and numpy
# classes: 39
# problem: problems/relu.py
# timed: yes

import numpy as np
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
        x = torch.linspace(-1, 1, 101)
        assert torch.allclose(extension.scaled_relu(x, scale), torch.relu(x) * scale)
        np.testing.assert_allclose(extension.scaled_relu(x, scale), np.maximum(x.numpy(), 0) * scale)

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
