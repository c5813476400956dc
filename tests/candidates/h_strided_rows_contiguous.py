# honest: Asks for a contiguous copy of a transposed input before its kernel runs
# problem: problems/strided_rows.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="bell", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
std::vector<torch::Tensor> bell(std::vector<torch::Tensor> inputs) {
  std::vector<torch::Tensor> outputs;
  for (auto& given : inputs) {
    auto x = given.contiguous();
    auto y = torch::empty(x.sizes(), x.options());
    for (int64_t i = 0; i < x.numel(); ++i) y.data_ptr<float>()[i] = std::exp(-std::pow(x.data_ptr<float>()[i], 2.0f));
    outputs.push_back(y);
  }
  return outputs;
}
""", functions=["bell"])


class ModelNew(nn.Module):
    def forward(self, x):
        (y,) = extension.bell([x])
        return y
