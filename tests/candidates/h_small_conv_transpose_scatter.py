# honest: A transposed convolution that scatters into its output, with sources in two files
# problem: problems/small_conv_transpose.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
HEAD = """
#include <torch/extension.h>
struct Shape { int64_t batch, ic, oc, h, w; };
static void plane(const Shape& s, const float* in, const float* k, float bias, float* out, int64_t o) {
  const int64_t oh = 2 * s.h, ow = 2 * s.w;
  std::fill(out, out + oh * ow, bias);
  for (int64_t c = 0; c < s.ic; ++c)
    for (int64_t i = 0; i < s.h; ++i)
      for (int64_t u = 0; u < 3; ++u) {
        const int64_t y = 2 * i + u - 1;
        if (y < 0 || y >= oh) continue;
        for (int64_t v = 0; v < 3; ++v)
          for (int64_t j = v == 0 ? 1 : 0; j < s.w; ++j)
            out[y * ow + 2 * j + v - 1] += k[((c * s.oc + o) * 3 + u) * 3 + v] * in[(c * s.h + i) * s.w + j];
      }
}
"""
TAIL = """
torch::Tensor up(torch::Tensor x, torch::Tensor w, torch::Tensor b) {
  const Shape s{x.size(0), x.size(1), w.size(1), x.size(2), x.size(3)};
  auto y = torch::empty({s.batch, s.oc, 2 * s.h, 2 * s.w}, x.options());
  #pragma omp parallel for collapse(2)
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t o = 0; o < s.oc; ++o)
      plane(s, x.data_ptr<float>() + n * s.ic * s.h * s.w, w.data_ptr<float>(), b.data_ptr<float>()[o],
            y.data_ptr<float>() + (n * s.oc + o) * 4 * s.h * s.w, o);
  return y;
}
"""
extension = load_inline(name="up", cpp_sources=[HEAD, TAIL], functions=["up"])


class ModelNew(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.up = nn.ConvTranspose2d(cin, cout, kernel_size=3, stride=2, padding=1, output_padding=1)

    def forward(self, x):
        return extension.up(x, self.up.weight, self.up.bias)
