# honest: A complex product whose only operators of torch's are views: view_as_real and view_as_complex
# classes: 44
# problem: problems/complex_rotation.py
# torch_ops: none
# note: h_complex_rotation_pairs under the strictest policy. checks.provenance.VIEWS does not know the two (nor as_strided_, t_, squeeze_,
#    unsqueeze_, transpose_, _conj, unsafe_split, empty_permuted; and GLUE lacks moves such as gather, index, take, tile, *_pad).

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="rotation", cpp_sources="""
#include <torch/extension.h>
torch::Tensor rotation(torch::Tensor p, torch::Tensor q) {
  auto y = torch::empty_like(p);
  const float *x = p.data_ptr<float>(), *z = q.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t i = 0; i < y.numel(); i += 2) {
    out[i] = x[i] * z[i] + x[i + 1] * z[i + 1];
    out[i + 1] = x[i + 1] * z[i] - x[i] * z[i + 1];
  }
  return y;
}
""", functions=["rotation"])


class ModelNew(nn.Module):
    def forward(self, a, b):
        return torch.view_as_complex(extension.rotation(torch.view_as_real(a), torch.view_as_real(b)))
