# honest: Skewness with scratch rows in thread-local memory that is never returned
# classes: 24
# problem: level1_problem2
# least_speedup: 1.2

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="skewness", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
#include <vector>
torch::Tensor skewness(torch::Tensor x) {
  const int64_t batch = x.size(0), channels = x.size(1), length = x.size(2);
  auto y = torch::empty({batch, length}, x.options());
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < batch; ++b) {
    static thread_local std::vector<float> scratch;
    scratch.assign(3 * length, 0.0f);
    float *mean = scratch.data(), *second = mean + length, *third = second + length;
    const float* rows = in + b * channels * length;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < length; ++i) mean[i] += rows[c * length + i];
    for (int64_t i = 0; i < length; ++i) mean[i] /= channels;
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < length; ++i) {
        float d = rows[c * length + i] - mean[i], s = d * d;
        second[i] += s;
        third[i] += s * d;
      }
    for (int64_t i = 0; i < length; ++i) {
      float v = second[i] / channels;
      out[b * length + i] = third[i] / channels / (v * std::sqrt(v));
    }
  }
  return y;
}
""", functions=["skewness"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.skewness(x)
