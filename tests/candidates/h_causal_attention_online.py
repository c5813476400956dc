# honest: Causal attention that never touches the future: half of the reference's work is not needed
# classes: 32
# problem: level3_problem1
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="causal", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
template <int D>
static void head_of(const float* q, const float* k, const float* v, float* o, int64_t length) {
  const float scale = 1.0f / std::sqrt((float)D);
  std::vector<float> p(length);
  for (int64_t i = 0; i < length; ++i) {
    float most = -1e30f, sum = 0.0f, acc[D] = {};
    for (int64_t j = 0; j <= i; ++j) {
      float dot = 0.0f;
      for (int d = 0; d < D; ++d) dot += q[i * D + d] * k[j * D + d];
      p[j] = dot * scale;
      most = std::max(most, p[j]);
    }
    for (int64_t j = 0; j <= i; ++j) {
      p[j] = std::exp(p[j] - most);
      sum += p[j];
    }
    for (int64_t j = 0; j <= i; ++j)
      for (int d = 0; d < D; ++d) acc[d] += p[j] * v[j * D + d];
    for (int d = 0; d < D; ++d) o[i * D + d] = acc[d] / sum;
  }
}
torch::Tensor attention(torch::Tensor q, torch::Tensor k, torch::Tensor v) {
  const int64_t heads = q.size(0) * q.size(1), length = q.size(2), d = q.size(3), step = length * d;
  TORCH_CHECK(d == 32, "made for heads of 32");
  auto y = torch::empty_like(q);
  #pragma omp parallel for
  for (int64_t h = 0; h < heads; ++h)
    head_of<32>(q.data_ptr<float>() + h * step, k.data_ptr<float>() + h * step, v.data_ptr<float>() + h * step,
                y.data_ptr<float>() + h * step, length);
  return y;
}
""", functions=["attention"], extra_cflags=["-O3", "-ffast-math"])


class ModelNew(nn.Module):
    def forward(self, q, k, v):
        return extension.attention(q, k, v)
