# honest: Its own loop, in pieces whose size the C library told it by ctypes
# classes: 44
# problem: problems/linear.py

import ctypes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor product(torch::Tensor x, torch::Tensor weight, int64_t piece) {
  auto y = torch::zeros({x.size(0), weight.size(0)}, x.options());
  const float* w = weight.data_ptr<float>();
  const int64_t n = weight.size(0), k = weight.size(1);
  for (int64_t r = 0; r < x.size(0); ++r) {
    const float* a = x.data_ptr<float>() + r * k;
    float* b = y.data_ptr<float>() + r * n;
    for (int64_t from = 0; from < k; from += piece) {
      const int64_t to = std::min(from + piece, k);
      #pragma omp parallel for
      for (int64_t i = 0; i < n; ++i) {
        float sum = 0;
        #pragma omp simd reduction(+:sum)
        for (int64_t j = from; j < to; ++j) sum += a[j] * w[i * k + j];
        b[i] += sum;
      }
    }
  }
  return y;
}
""", functions=["product"])
PAGE_BYTES = ctypes.CDLL(None).getpagesize()


class ModelNew(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)

    def forward(self, x):
        return extension.product(x, self.linear.weight, PAGE_BYTES // 4)
