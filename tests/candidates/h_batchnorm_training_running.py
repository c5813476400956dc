# honest: Batch norm in training mode; it changes its own running statistics in place, as the reference does
# problem: problems/batchnorm_training.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="batchnorm", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor batchnorm(torch::Tensor x, torch::Tensor w, torch::Tensor b, torch::Tensor mean, torch::Tensor var, double rate, double eps) {
  const int64_t batch = x.size(0), channels = x.size(1), plane = x.size(2) * x.size(3), n = batch * plane;
  auto y = torch::empty_like(x);
  const float* in = x.data_ptr<float>();
  float *out = y.data_ptr<float>(), *m = mean.data_ptr<float>(), *v = var.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0.0, square = 0.0;
    for (int64_t i = 0; i < batch; ++i)
      for (int64_t j = 0; j < plane; ++j) {
        const double a = in[(i * channels + c) * plane + j];
        sum += a;
        square += a * a;
      }
    const double mu = sum / n, sigma2 = square / n - mu * mu;
    m[c] += rate * (mu - m[c]);
    v[c] += rate * (sigma2 * n / (n - 1) - v[c]);
    const float scale = w.data_ptr<float>()[c] / std::sqrt(sigma2 + eps), shift = b.data_ptr<float>()[c] - mu * scale;
    for (int64_t i = 0; i < batch; ++i)
      for (int64_t j = 0; j < plane; ++j) {
        const int64_t at = (i * channels + c) * plane + j;
        out[at] = std::max(0.0f, in[at] * scale + shift);
      }
  }
  return y;
}
""", functions=["batchnorm"])


class ModelNew(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        nn.init.uniform_(self.bn.weight, 0.5, 1.5)

    def forward(self, x):
        bn = self.bn
        bn.num_batches_tracked.add_(1)
        return extension.batchnorm(x, bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.momentum, bn.eps)
