# honest: A blur in two one-dimensional passes through a scratch tensor that is kept between calls
# classes: 17 24
# problem: problems/reflected_blur.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="blur", cpp_sources="""
#include <torch/extension.h>
static inline int64_t mirrored(int64_t i, int64_t n) { return i < 0 ? -i : i >= n ? 2 * n - 2 - i : i; }
void blur(torch::Tensor x, torch::Tensor scratch, torch::Tensor y) {
  static const float taps[5] = {1 / 16.f, 4 / 16.f, 6 / 16.f, 4 / 16.f, 1 / 16.f};
  const int64_t planes = x.size(0) * x.size(1), h = x.size(2), w = x.size(3);
  #pragma omp parallel for
  for (int64_t p = 0; p < planes; ++p) {
    const float* in = x.data_ptr<float>() + p * h * w;
    float *mid = scratch.data_ptr<float>() + p * h * w, *out = y.data_ptr<float>() + p * h * w;
    for (int64_t i = 0; i < h; ++i)
      for (int64_t j = 0; j < w; ++j) {
        float sum = 0.0f;
        for (int64_t t = -2; t <= 2; ++t) sum += taps[t + 2] * in[i * w + mirrored(j + t, w)];
        mid[i * w + j] = sum;
      }
    for (int64_t i = 0; i < h; ++i)
      for (int64_t j = 0; j < w; ++j) {
        float sum = 0.0f;
        for (int64_t t = -2; t <= 2; ++t) sum += taps[t + 2] * mid[mirrored(i + t, h) * w + j];
        out[i * w + j] = sum;
      }
  }
}
""", functions=["blur"])


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.scratch = {}

    def forward(self, x):
        if x.shape not in self.scratch:
            self.scratch[x.shape] = torch.empty(x.shape)
        y = torch.empty_like(x)
        extension.blur(x, self.scratch[x.shape], y)
        return y
