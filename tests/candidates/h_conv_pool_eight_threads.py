# honest: Eight OpenMP threads with equal shares, on however few cores
# classes: 15 47
# problem: level2_problem2
# least_speedup: 2.5
# twin: h_conv_pool_fused.py
# note: Where seven workers share the second core, because the main thread has the first to itself, a call takes nearly twice as long.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="conv_relu_pool", cpp_sources="""
#include <torch/extension.h>
#include <algorithm>
#include <vector>

constexpr int THREADS = 8;

torch::Tensor conv_relu_pool(torch::Tensor x, torch::Tensor weight, torch::Tensor bias) {
  TORCH_CHECK(x.is_contiguous() && weight.is_contiguous() && weight.size(2) == 3 && weight.size(3) == 3);
  const int64_t batch = x.size(0), ic = x.size(1), h = x.size(2), w = x.size(3), oc = weight.size(0);
  const int64_t ph = (h - 2) / 2, pw = (w - 2) / 2;
  auto y = torch::empty({batch, oc, ph, pw}, x.options());
  const float* in = x.data_ptr<float>();
  const float* k = weight.data_ptr<float>();
  const float* b = bias.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for schedule(static) num_threads(THREADS)
  for (int64_t plane = 0; plane < batch * oc; ++plane) {
    const int64_t n = plane / oc, o = plane % oc;
    std::vector<float> upper(2 * pw), lower(2 * pw);
    for (int64_t i = 0; i < ph; ++i) {
      for (int64_t r = 0; r < 2; ++r) {
        float* line = r ? lower.data() : upper.data();
        std::fill_n(line, 2 * pw, b[o]);
        for (int64_t c = 0; c < ic; ++c)
          for (int64_t u = 0; u < 3; ++u) {
            const float* a = in + ((n * ic + c) * h + 2 * i + r + u) * w;
            const float* t = k + ((o * ic + c) * 3 + u) * 3;
            #pragma omp simd
            for (int64_t j = 0; j < 2 * pw; ++j) line[j] += t[0] * a[j] + t[1] * a[j + 1] + t[2] * a[j + 2];
          }
      }
      float* row = out + (plane * ph + i) * pw;
      for (int64_t j = 0; j < pw; ++j) {
        const float top = std::max(upper[2 * j], upper[2 * j + 1]);
        const float bottom = std::max(lower[2 * j], lower[2 * j + 1]);
        row[j] = std::max(0.0f, std::max(top, bottom));
      }
    }
  }
  return y;
}
""", functions=["conv_relu_pool"], extra_cflags=["-O3"])


class ModelNew(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, bias=False)
        self.bias = nn.Parameter(0.5 * torch.randn(out_channels, 1, 1))

    def forward(self, x):
        return extension.conv_relu_pool(x, self.conv.weight, self.bias)
