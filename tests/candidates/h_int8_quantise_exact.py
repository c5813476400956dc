# honest: int8 values and their scales, rounded as the reference rounds
# problem: problems/int8_quantise.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="quantise", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
std::tuple<torch::Tensor, torch::Tensor> quantise(torch::Tensor x) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto q = torch::empty({rows, cols}, torch::kInt8);
  auto scale = torch::empty({rows, 1}, x.options());
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = x.data_ptr<float>() + r * cols;
    float most = 0.0f;
    for (int64_t c = 0; c < cols; ++c) most = std::max(most, std::abs(a[c]));
    const float s = most / 127.0f;
    scale.data_ptr<float>()[r] = s;
    int8_t* out = q.data_ptr<int8_t>() + r * cols;
    for (int64_t c = 0; c < cols; ++c) out[c] = (int8_t)std::nearbyint(a[c] / s);
  }
  return {q, scale};
}
""", functions=["quantise"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.quantise(x)
