# honest: A large output, all of it computed in every call
# classes: 21 32
# problem: problems/large_tanh.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="all_tanh", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
#include <cstring>
static inline float quick_tanh(float v) {
  const float t = std::fmin(std::fmax(v, -9.0f), 9.0f) * 2.88539008f, n = std::floor(t + 0.5f), f = (t - n) * 0.693147181f;
  const float series = 1 + f * (1 + f * (0.5f + f * (1.0f / 6 + f * (1.0f / 24 + f * (1.0f / 120 + f / 720)))));
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return 1 - 2 / (series * power + 1);
}
torch::Tensor all_tanh(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for simd
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = quick_tanh(a[i]);
  return y;
}
""", functions=["all_tanh"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.all_tanh(x)
