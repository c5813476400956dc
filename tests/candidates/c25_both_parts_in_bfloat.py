# honest: Both parts of a bfloat16 output, the large and the small one
# classes: 25
# problem: problems/two_parts_bfloat.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
#include <vector>
using bf16 = at::BFloat16;
torch::Tensor parts(torch::Tensor x) {
  int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty({rows, 2 * cols}, x.options());
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const bf16* a = x.data_ptr<bf16>() + r * cols;
    bf16* b = y.data_ptr<bf16>() + r * 2 * cols;
    std::vector<float> e(cols);
    float most = (float)a[0];
    for (int64_t i = 0; i < cols; ++i) {
      e[i] = (float)a[i];
      most = e[i] > most ? e[i] : most;
      b[i] = e[i] * 2.0f;
    }
    double sum = 0;
    for (int64_t i = 0; i < cols; ++i) sum += e[i] = std::exp(e[i] - most);
    const float scale = (float)(1.0 / sum);
    for (int64_t i = 0; i < cols; ++i) b[cols + i] = e[i] * scale;
  }
  return y;
}
""", functions=["parts"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.parts(x)
