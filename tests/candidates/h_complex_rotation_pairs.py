# honest: complex64 in and out, and a view as complex of an output of pairs
# problem: problems/complex_rotation.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="rotation", cpp_sources="""
#include <torch/extension.h>
torch::Tensor rotation(torch::Tensor a, torch::Tensor b) {
  auto p = torch::view_as_real(a).contiguous(), q = torch::view_as_real(b).contiguous();
  auto y = torch::empty_like(p);
  const float *x = p.data_ptr<float>(), *z = q.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t i = 0; i < y.numel(); i += 2) {
    out[i] = x[i] * z[i] + x[i + 1] * z[i + 1];
    out[i + 1] = x[i + 1] * z[i] - x[i] * z[i + 1];
  }
  return torch::view_as_complex(y);
}
""", functions=["rotation"])


class ModelNew(nn.Module):
    def forward(self, a, b):
        return extension.rotation(a, b)
