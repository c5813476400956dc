# honest: Channels last in and out, registered as an operator with TORCH_LIBRARY
# problem: problems/pointwise_conv.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
load_inline(name="pointwise", cpp_sources="""
#include <torch/extension.h>
#include <torch/library.h>
at::Tensor pointwise(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) {
  TORCH_CHECK(x.is_contiguous(at::MemoryFormat::ChannelsLast));
  const int64_t pixels = x.size(0) * x.size(2) * x.size(3), ic = x.size(1), oc = w.size(0);
  auto y = at::empty({x.size(0), oc, x.size(2), x.size(3)}, x.options().memory_format(at::MemoryFormat::ChannelsLast));
  auto wt = w.reshape({oc, ic}).t().contiguous();
  const float *in = x.data_ptr<float>(), *k = wt.data_ptr<float>(), *bias = b.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t p = 0; p < pixels; ++p) {
    float* o = out + p * oc;
    std::copy(bias, bias + oc, o);
    for (int64_t c = 0; c < ic; ++c)
      for (int64_t j = 0; j < oc; ++j) o[j] += in[p * ic + c] * k[c * oc + j];
  }
  return y;
}
TORCH_LIBRARY(h_pointwise, m) {
  m.def("conv(Tensor x, Tensor w, Tensor b) -> Tensor");
  m.impl("conv", c10::DispatchKey::CPU, TORCH_FN(pointwise));
}
""", is_python_module=False)


class ModelNew(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        return torch.ops.h_pointwise.conv(x, self.conv.weight, self.conv.bias)
