# honest: Depthwise convolution whose parameters have names of its own: the same seed makes the same weights
# classes: 23 34
# problem: level1_problem6
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="depthwise", cpp_sources="""
#include <torch/extension.h>
torch::Tensor depthwise(torch::Tensor x, torch::Tensor taps, torch::Tensor offset) {
  const int64_t planes = x.size(0) * x.size(1), channels = x.size(1), h = x.size(2), w = x.size(3);
  auto y = torch::empty_like(x);
  const float *in = x.data_ptr<float>(), *t = taps.data_ptr<float>(), *o = offset.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < planes; ++p) {
    const float* a = in + p * h * w;
    const float* k = t + (p % channels) * 9;
    for (int64_t i = 0; i < h; ++i) {
      const float* rows[3] = {a + std::max<int64_t>(i - 1, 0) * w, a + i * w, a + std::min(i + 1, h - 1) * w};
      float* line = out + (p * h + i) * w;
      auto at = [&](int64_t j, int64_t left, int64_t right) {
        float sum = o[p % channels];
        for (int r = 0; r < 3; ++r) sum += k[3 * r] * rows[r][left] + k[3 * r + 1] * rows[r][j] + k[3 * r + 2] * rows[r][right];
        return sum;
      };
      line[0] = at(0, 0, 1);
      for (int64_t j = 1; j < w - 1; ++j) line[j] = at(j, j - 1, j + 1);
      line[w - 1] = at(w - 1, w - 2, w - 1);
    }
  }
  return y;
}
""", functions=["depthwise"])


class ModelNew(nn.Module):
    def __init__(self, channels):
        super().__init__()
        conv = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="replicate", groups=channels)
        self.taps = nn.Parameter(conv.weight.detach().reshape(channels, 9).clone())
        self.offset = nn.Parameter(conv.bias.detach().clone())

    def forward(self, x):
        return extension.depthwise(x, self.taps, self.offset)
