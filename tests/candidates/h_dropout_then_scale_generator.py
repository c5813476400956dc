# honest: Dropout whose mask comes from torch's generator, in torch's order; the rest is one kernel
# classes: 34
# problem: problems/dropout_then_scale.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="dropout", cpp_sources="""
#include <torch/extension.h>
torch::Tensor dropped(torch::Tensor x, torch::Tensor scale, double p) {
  auto y = torch::empty_like(x);
  y.bernoulli_(1.0 - p);  // draws as torch's own dropout does
  const int64_t rows = x.size(0), cols = x.size(1);
  const float *in = x.data_ptr<float>(), *s = scale.data_ptr<float>();
  float* out = y.data_ptr<float>();
  const float keep = 1.0 / (1.0 - p);
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) out[r * cols + c] *= in[r * cols + c] * keep * s[c];
  return y;
}
""", functions=["dropped"])


class ModelNew(nn.Module):
    def __init__(self, width, p):
        super().__init__()
        self.p = p
        self.scale = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return extension.dropped(x, self.scale, self.p)
