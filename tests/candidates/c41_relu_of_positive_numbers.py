# honest: A plain relu of inputs that are never negative: its result is its input
# classes: 41
# problem: problems/positive_relu.py
# note: KernelBench's level 1 #19 (and, alike, #20 and #32) with inputs by torch.rand. The extra trial shows that it is a relu.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor rectified(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] : 0.0f;
  return y;
}
""", functions=["rectified"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.rectified(x)
