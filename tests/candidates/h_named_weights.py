# honest: The weights come to the kernel as a named tuple, which a std::vector<torch::Tensor> takes like any other
# classes: 41
# problem: problems/scaled_bias.py
# note: ablation.replaced makes a tuple of the same type from one generator (`type(value)(...)`), and a named tuple wants its fields
#    one by one. So there is a TypeError in the watched forward, and `runtime_error` for a kernel that passed everything else. (values.cast
#    and runner._copied have the same line, for problems whose inputs are named tuples.)

from typing import NamedTuple

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="scaled_bias", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor scaled_bias(torch::Tensor x, std::vector<torch::Tensor> weights) {
  auto y = torch::empty_like(x);
  const int64_t rows = x.size(0), width = x.size(1);
  const float *a = x.data_ptr<float>(), *bias = weights[0].data_ptr<float>(), *scale = weights[1].data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < width; ++i) b[r * width + i] = std::tanh((a[r * width + i] + bias[i]) * scale[i]);
  return y;
}
""", functions=["scaled_bias"])


class Weights(NamedTuple):
    bias: torch.Tensor
    scale: torch.Tensor


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(width))
        self.scale = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return extension.scaled_bias(x, Weights(self.bias, self.scale))
