# honest: Parameters that __init__ leaves uninitialised: the reference's are loaded by name
# classes: 23 28
# problem: problems/dilated_conv1d.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="dilated", cpp_sources="""
#include <torch/extension.h>
torch::Tensor dilated(torch::Tensor x, torch::Tensor w, torch::Tensor b, int64_t d) {
  const int64_t batch = x.size(0), ic = x.size(1), n = x.size(2), oc = w.size(0);
  auto y = torch::empty({batch, oc, n}, x.options());
  const float *in = x.data_ptr<float>(), *k = w.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for collapse(2)
  for (int64_t i = 0; i < batch; ++i)
    for (int64_t o = 0; o < oc; ++o) {
      float* line = out + (i * oc + o) * n;
      std::fill(line, line + n, b.data_ptr<float>()[o]);
      for (int64_t c = 0; c < ic; ++c)
        for (int64_t t = 0; t < 3; ++t) {
          const int64_t shift = (t - 1) * d, from = std::max<int64_t>(0, -shift), to = std::min(n, n - shift);
          const float tap = k[(o * ic + c) * 3 + t], *a = in + (i * ic + c) * n + shift;
          for (int64_t j = from; j < to; ++j) line[j] += tap * a[j];
        }
    }
  return y;
}
""", functions=["dilated"])


class Conv(nn.Module):
    def __init__(self, cin, cout, dilation):
        super().__init__()
        self.weight = nn.Parameter(torch.full((cout, cin, 3), float("nan")))
        self.bias = nn.Parameter(torch.empty(cout))
        self.dilation = dilation

    def forward(self, x):
        return extension.dilated(x, self.weight, self.bias, self.dilation)


class ModelNew(nn.Module):
    def __init__(self, cin, cout, dilation):
        super().__init__()
        self.conv = Conv(cin, cout, dilation)

    def forward(self, x):
        return self.conv(x)
