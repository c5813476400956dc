# honest: A tanh by a polynomial that is good to six digits
# classes: 29
# problem: level1_problem1
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <algorithm>
#include <cmath>
#include <cstring>
torch::Tensor gelu(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for simd
  for (int64_t i = 0; i < x.numel(); ++i) {
    float v = a[i], t = 0.7978845608f * (v + 0.044715f * v * v * v);
    t = std::min(std::max(t, -9.0f), 9.0f);
    float p = t * 2.8853900818f, whole = std::floor(p + 0.5f), f = p - whole;  // exp(2 t) = 2^whole * 2^f
    float e = 1 + f * (0.69314718f + f * (0.24022651f + f * (0.05550411f + f * (0.00961813f + f * (0.00133336f + f * 0.00015404f)))));
    int32_t bits = ((int32_t)whole + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    e *= power;
    float tanh = (e - 1) / (e + 1);
    b[i] = 0.5f * v * (1.0f + tanh);
  }
  return y;
}
""", functions=["gelu"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.gelu(x)
