# honest: Argmax as int64, with a template over the index type
# problem: problems/row_argmax.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="argmax", cpp_sources="""
#include <torch/extension.h>
template <typename Index>
static void largest(const float* in, Index* out, int64_t rows, int64_t cols) {
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = in + r * cols;
    float most = a[0];
    for (int64_t c = 1; c < cols; ++c) most = std::max(most, a[c]);
    Index at = 0;
    while (a[at] != most) ++at;
    out[r] = at;
  }
}
at::Tensor argmax(const at::Tensor& x) {
  at::Tensor y = at::empty({x.size(0)}, x.options().dtype(at::kLong));
  largest<int64_t>(x.data_ptr<float>(), y.data_ptr<int64_t>(), x.size(0), x.size(1));
  return y;
}
""", functions=["argmax"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.argmax(x)
