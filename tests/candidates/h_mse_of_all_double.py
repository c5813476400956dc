# honest: A loss without dimensions, summed in double precision
# classes: 26
# problem: problems/mse_of_all.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="mse", cpp_sources="""
#include <torch/extension.h>
torch::Tensor mse(torch::Tensor p, torch::Tensor t) {
  const float *a = p.data_ptr<float>(), *b = t.data_ptr<float>();
  const int64_t n = p.numel();
  double sum = 0.0;
  #pragma omp parallel for simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += (double)(a[i] - b[i]) * (a[i] - b[i]);
  auto y = torch::empty({}, p.options());
  *y.data_ptr<float>() = sum / n;
  return y;
}
""", functions=["mse"])


class ModelNew(nn.Module):
    def forward(self, prediction, target):
        return extension.mse(prediction, target)
