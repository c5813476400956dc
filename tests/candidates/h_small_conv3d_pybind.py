# honest: Bindings of its own with PYBIND11_MODULE and default arguments
# problem: problems/small_conv3d.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="conv3d", cpp_sources="""
#include <torch/extension.h>
torch::Tensor conv(torch::Tensor x, torch::Tensor w, bool activate) {
  auto y = torch::empty({x.size(0), w.size(0), x.size(2) - 2, x.size(3) - 2, x.size(4) - 2}, x.options());
  auto in = x.accessor<float, 5>();
  auto k = w.accessor<float, 5>();
  auto out = y.accessor<float, 5>();
  #pragma omp parallel for collapse(2)
  for (int64_t n = 0; n < y.size(0); ++n)
    for (int64_t o = 0; o < y.size(1); ++o)
      for (int64_t d = 0; d < y.size(2); ++d)
        for (int64_t i = 0; i < y.size(3); ++i)
          for (int64_t j = 0; j < y.size(4); ++j) {
            float sum = 0.0f;
            for (int64_t c = 0; c < x.size(1); ++c)
              for (int t = 0; t < 3; ++t)
                for (int u = 0; u < 3; ++u)
                  for (int v = 0; v < 3; ++v) sum += k[o][c][t][u][v] * in[n][c][d + t][i + u][j + v];
            out[n][o][d][i][j] = activate ? sum * std::min(6.0f, std::max(0.0f, sum + 3.0f)) / 6.0f : sum;
          }
  return y;
}
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("conv", &conv, "a convolution", py::arg("x"), py::arg("w"), py::arg("activate") = true);
}
""")


class ModelNew(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv3d(cin, cout, 3, bias=False)

    def forward(self, x):
        return extension.conv(x=x, w=self.conv.weight)
