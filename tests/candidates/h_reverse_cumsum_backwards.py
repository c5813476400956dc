# honest: A scan from the end, in double precision
# problem: problems/reverse_cumsum.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="suffix", cpp_sources="""
#include <torch/extension.h>
torch::Tensor suffix_sums(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const int64_t rows = x.size(0), cols = x.size(1);
  at::parallel_for(0, rows, 0, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* a = x.data_ptr<float>() + r * cols;
      float* o = y.data_ptr<float>() + r * cols;
      double sum = 0.0;
      for (int64_t c = cols; c-- > 0;) o[c] = sum += a[c];
    }
  });
  return y;
}
""", functions=["suffix_sums"])


class ModelNew:
    """No nn.Module: what is called is enough."""

    def __call__(self, x):
        return extension.suffix_sums(x)
