# honest: A softmax whose outputs are all below the plain tolerance
# classes: 25 26
# problem: problems/wide_softmax.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <algorithm>
#include <cmath>
torch::Tensor softmax(torch::Tensor x) {
  int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty_like(x);
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = x.data_ptr<float>() + r * cols;
    float* b = y.data_ptr<float>() + r * cols;
    float most = *std::max_element(a, a + cols);
    double total = 0;
    for (int64_t i = 0; i < cols; ++i) total += b[i] = std::exp(a[i] - most);
    for (int64_t i = 0; i < cols; ++i) b[i] = b[i] / total;
  }
  return y;
}
""", functions=["softmax"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.softmax(x)
