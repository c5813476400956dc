# honest: Convolution, bias, ReLU and pooling in one pass, with a scratch buffer of its own that is written in place
# classes: 24
# problem: level2_problem2
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="conv_pool", cpp_sources="""
#include <torch/extension.h>
#include <memory>
torch::Tensor conv_pool(torch::Tensor x, torch::Tensor weight, torch::Tensor bias) {
  const int64_t batch = x.size(0), ic = x.size(1), h = x.size(2), w = x.size(3), oc = weight.size(0);
  const int64_t ph = (h - 2) / 2, pw = (w - 2) / 2, width = 2 * pw;
  auto y = torch::empty({batch, oc, ph, pw}, x.options());
  const float *in = x.data_ptr<float>(), *k = weight.data_ptr<float>(), *b = bias.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel
  {
    auto lines = std::make_unique<float[]>(2 * width);
    #pragma omp for collapse(2) schedule(static)
    for (int64_t n = 0; n < batch; ++n)
      for (int64_t o = 0; o < oc; ++o)
        for (int64_t i = 0; i < ph; ++i) {
          for (int r = 0; r < 2; ++r) {
            float* line = lines.get() + r * width;
            for (int64_t j = 0; j < width; ++j) line[j] = b[o];
            for (int64_t c = 0; c < ic; ++c)
              for (int u = 0; u < 3; ++u) {
                const float* a = in + ((n * ic + c) * h + 2 * i + r + u) * w;
                const float* t = k + ((o * ic + c) * 3 + u) * 3;
                for (int64_t j = 0; j < width; ++j) line[j] += t[0] * a[j] + t[1] * a[j + 1] + t[2] * a[j + 2];
              }
          }
          const float *p = lines.get(), *q = p + width;
          for (int64_t j = 0; j < pw; ++j)
            out[((n * oc + o) * ph + i) * pw + j] = std::max(0.0f, std::max(std::max(p[2*j], p[2*j+1]), std::max(q[2*j], q[2*j+1])));
        }
  }
  return y;
}
""", functions=["conv_pool"])


class ModelNew(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, bias=False)
        self.bias = nn.Parameter(0.5 * torch.randn(out_channels, 1, 1))

    def forward(self, x):
        return extension.conv_pool(x, self.conv.weight, self.bias)
