# honest: Bindings whose module is named by hand, with the name that load_inline was given
# classes: 56
# problem: level1_problem4
# timed: yes
# note: torch names a module as it was asked to (`name=`), so that PYBIND11_MODULE(fused_rms_norm, m) is as good as
#    PYBIND11_MODULE(TORCH_EXTENSION_NAME, m). Here every module has a name by its content, which the extension does not know.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

SOURCE = r"""
#include <torch/extension.h>
#include <cmath>

torch::Tensor rms_norm(torch::Tensor x, torch::Tensor weight, double eps) {
  TORCH_CHECK(x.dim() == 2 && x.is_contiguous(), "x must be a contiguous matrix");
  TORCH_CHECK(weight.numel() == x.size(1), "a weight for every column");
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty_like(x);
  const float* in = x.data_ptr<float>();
  const float* w = weight.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = in + r * cols;
    float* b = out + r * cols;
    float sum = 0.0f;
    #pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < cols; ++c) sum += a[c] * a[c];
    const float scale = 1.0f / std::sqrt(sum / cols + static_cast<float>(eps));
    #pragma omp simd
    for (int64_t c = 0; c < cols; ++c) b[c] = a[c] * scale * w[c];
  }
  return y;
}

PYBIND11_MODULE(fused_rms_norm, m) {
  m.doc() = "RMS norm for contiguous matrices";
  m.def("rms_norm", &rms_norm, "over the last dimension", py::arg("x"), py::arg("weight"), py::arg("eps") = 1e-5);
}
"""

fused_rms_norm = load_inline(name="fused_rms_norm", cpp_sources=SOURCE, extra_cflags=["-O3"], verbose=False)


class ModelNew(nn.Module):
    def __init__(self, hidden, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(hidden) + 0.5)

    def forward(self, x):
        return fused_rms_norm.rms_norm(x.contiguous(), self.weight, eps=self.eps)
