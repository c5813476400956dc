# honest: The mean of group-normalised values, group by group
# classes: 26
# problem: problems/zero_mean.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor mean(torch::Tensor x, torch::Tensor weight, torch::Tensor bias, int64_t groups, double eps) {
  int64_t batch = x.size(0), channels = x.size(1), size = x.size(2) * x.size(3), each = channels / groups;
  auto y = torch::empty({batch}, x.options());
  const float *w = weight.data_ptr<float>(), *c = bias.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t n = 0; n < batch; ++n) {
    double total = 0;
    for (int64_t g = 0; g < groups; ++g) {
      const float* a = x.data_ptr<float>() + (n * channels + g * each) * size;
      double sum = 0, square = 0;
      for (int64_t i = 0; i < each * size; ++i) sum += a[i], square += (double)a[i] * a[i];
      float mean = sum / (each * size), scale = 1 / std::sqrt(square / (each * size) - (double)mean * mean + eps);
      for (int64_t k = 0; k < each; ++k)
        for (int64_t i = 0; i < size; ++i) total += (a[k * size + i] - mean) * scale * w[g * each + k] + c[g * each + k];
    }
    y.data_ptr<float>()[n] = total / (channels * size);
  }
  return y;
}
""", functions=["mean"])


class ModelNew(nn.Module):
    def __init__(self, groups, channels):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x):
        n = self.norm
        return extension.mean(x, n.weight, n.bias, n.num_groups, n.eps)
