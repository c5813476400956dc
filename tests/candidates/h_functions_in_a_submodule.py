# honest: The kernel is a function of a submodule of the extension
# classes: 41
# problem: level1_problem1
# timed: yes
# note: Provenance.loaded watches functions and classes of the module itself. What m.def_submodule made is neither, so that its
#    launches are not counted: "forward() ran no kernel of its own" (`decoy`).

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="activations", cpp_sources="""
#include <torch/extension.h>
#include <algorithm>
#include <cmath>

namespace activations {
torch::Tensor gelu(const torch::Tensor& input) {
  auto x = input.contiguous();
  auto y = torch::empty_like(x);
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  const int64_t n = x.numel();
  #pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    const float v = in[i];
    const float z = 0.7978845608028654f * (v + 0.044715f * v * v * v);
    out[i] = v * (1.0f - 1.0f / (std::exp(2.0f * std::min(z, 20.0f)) + 1.0f));
  }
  return y;
}
}  // namespace activations

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  auto pointwise = m.def_submodule("pointwise", "functions of single elements");
  pointwise.def("gelu", &activations::gelu, "GELU in its tanh form");
}
""", extra_cflags=["-O3", "-ffast-math"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.pointwise.gelu(x)
