# honest: Both parts of an output, the large and the small one
# classes: 25 32
# problem: problems/two_parts.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <algorithm>
#include <cmath>
torch::Tensor parts(torch::Tensor x) {
  int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty({rows, 2 * cols}, x.options());
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = x.data_ptr<float>() + r * cols;
    float* b = y.data_ptr<float>() + r * 2 * cols;
    for (int64_t i = 0; i < cols; ++i) b[i] = a[i] * 2.0f;
    b += cols;
    float most = *std::max_element(a, a + cols);
    double total = 0;
    for (int64_t i = 0; i < cols; ++i) total += b[i] = std::exp(a[i] - most);
    for (int64_t i = 0; i < cols; ++i) b[i] = b[i] / total;
  }
  return y;
}
""", functions=["parts"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.parts(x)
