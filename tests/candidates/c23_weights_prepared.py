# honest: The mean is taken first, and the weights were put in another order once
# classes: 23 11
# problem: problems/mean_linear.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="mean_first", cpp_sources="""
#include <torch/extension.h>
torch::Tensor mean_linear(torch::Tensor x, torch::Tensor turned, torch::Tensor bias) {
  int64_t rows = x.size(0), features = x.size(1), outputs = turned.size(1), threads = 2;
  std::vector<double> sums(threads * features, 0.0);
  const float* a = x.data_ptr<float>();
  #pragma omp parallel for num_threads(threads)
  for (int64_t t = 0; t < threads; ++t)
    for (int64_t row = rows * t / threads; row < rows * (t + 1) / threads; ++row) {
      double* sum = sums.data() + t * features;
      const float* values = a + row * features;
      for (int64_t f = 0; f < features; ++f) sum[f] += values[f];
    }
  auto y = bias.clone();
  const float* w = turned.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t f = 0; f < features; ++f) {
    float mean = (sums[f] + sums[features + f]) / rows;
    for (int64_t o = 0; o < outputs; ++o) b[o] += mean * w[f * outputs + o];
  }
  return y;
}
""", functions=["mean_linear"])


class ModelNew(nn.Module):
    def __init__(self, features, outputs):
        super().__init__()
        self.linear = nn.Linear(features, outputs)
        self.turned = None

    def forward(self, x):
        if self.turned is None:
            self.turned = self.linear.weight.detach().t().contiguous()
        return extension.mean_linear(x, self.turned, self.linear.bias.detach())
