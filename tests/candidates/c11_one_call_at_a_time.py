# honest: A small input, on one thread
# classes: 11 57
# problem: problems/small_relu.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="fused_calls", cpp_sources="""
#include <torch/extension.h>
std::vector<torch::Tensor> scaled_relu(std::vector<torch::Tensor> xs, double scale) {
  std::vector<torch::Tensor> ys;
  for (auto& x : xs) ys.push_back(torch::empty_like(x));
  const float s = scale;
  int64_t count = xs.size();
  #pragma omp parallel for if (count > 1)
  for (int64_t k = 0; k < count; ++k) {
    const float* a = xs[k].data_ptr<float>();
    float* b = ys[k].data_ptr<float>();
    for (int64_t i = 0; i < xs[k].numel(); ++i) b[i] = (a[i] > 0 ? a[i] : 0.0f) * s;
  }
  return ys;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu([x], self.scale)[0]
