# honest: A C++ kernel behind torch.library.custom_op
# problem: problems/group_norm_silu.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="group_norm", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor group_norm(torch::Tensor x, torch::Tensor shortcut, torch::Tensor w, torch::Tensor b, int64_t groups, double eps) {
  const int64_t batch = x.size(0), channels = x.size(1), plane = x.size(2) * x.size(3), each = channels / groups, n = each * plane;
  auto y = torch::empty_like(x);
  #pragma omp parallel for
  for (int64_t g = 0; g < batch * groups; ++g) {
    const float *in = x.data_ptr<float>() + g * n, *add = shortcut.data_ptr<float>() + g * n;
    float* out = y.data_ptr<float>() + g * n;
    double sum = 0.0, square = 0.0;
    for (int64_t i = 0; i < n; ++i) {
      sum += in[i];
      square += (double)in[i] * in[i];
    }
    const double mean = sum / n, scale = 1.0 / std::sqrt(square / n - mean * mean + eps);
    for (int64_t c = 0; c < each; ++c) {
      const int64_t channel = g % groups * each + c;
      const float s = scale * w.data_ptr<float>()[channel], t = b.data_ptr<float>()[channel] - mean * s;
      for (int64_t i = c * plane; i < (c + 1) * plane; ++i) {
        const float v = in[i] * s + t;
        out[i] = v / (1.0f + std::exp(-v)) + add[i];
      }
    }
  }
  return y;
}
""", functions=["group_norm"], extra_cflags=["-ffast-math"])


@torch.library.custom_op("h_corpus::group_norm_silu", mutates_args=())
def group_norm_silu(
    x: torch.Tensor, shortcut: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, groups: int, eps: float
) -> torch.Tensor:
    return extension.group_norm(x, shortcut, weight, bias, groups, eps)


class ModelNew(nn.Module):
    def __init__(self, groups, channels):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x, shortcut):
        return group_norm_silu(x, shortcut, self.norm.weight, self.norm.bias, self.norm.num_groups, self.norm.eps)
