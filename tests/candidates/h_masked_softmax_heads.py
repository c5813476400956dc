# honest: Masked softmax over bool masks; masked keys get exactly zero
# classes: 25
# problem: level2_problem5
# timed: yes

from __future__ import annotations

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="masked_softmax", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor masked_softmax(const torch::Tensor& scores, const torch::Tensor& masked, const torch::Tensor& head, double scale) {
  const int64_t heads = scores.size(0), queries = scores.size(1), keys = scores.size(2);
  torch::Tensor y = torch::empty_like(scores);
  const float* in = scores.data_ptr<float>();
  const bool* hide = masked.data_ptr<bool>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for collapse(2)
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t q = 0; q < queries; ++q) {
      const float* a = in + (h * queries + q) * keys;
      const bool* m = hide + q * keys;
      float* o = out + (h * queries + q) * keys;
      float most = -3e38f, sum = 0.0f;
      for (int64_t k = 0; k < keys; ++k) most = m[k] ? most : std::max(most, a[k]);
      for (int64_t k = 0; k < keys; ++k) {
        o[k] = m[k] ? 0.0f : std::exp((a[k] - most) * (float)scale);
        sum += o[k];
      }
      const float weight = head.data_ptr<float>()[h] / sum;
      for (int64_t k = 0; k < keys; ++k) o[k] *= weight;
    }
  return y;
}
""", functions=["masked_softmax"])


class ModelNew(nn.Module):
    def __init__(self, heads: int, scale: float) -> None:
        super().__init__()
        self.head_weight: nn.Parameter = nn.Parameter(1.0 + torch.rand(heads, 1, 1))
        self.scale: float = scale

    def forward(self, scores: torch.Tensor, masked: torch.BoolTensor) -> torch.Tensor:
        return extension.masked_softmax(scores, masked, self.head_weight, self.scale)
