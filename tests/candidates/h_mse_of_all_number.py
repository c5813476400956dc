# honest: The kernel returns a number, and Python makes a tensor of it
# classes: 26 41
# problem: problems/mse_of_all.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="number", cpp_sources="""
#include <torch/extension.h>
double mse(torch::Tensor p, torch::Tensor t) {
  const float *a = p.data_ptr<float>(), *b = t.data_ptr<float>();
  double sum = 0.0;
  #pragma omp parallel for simd reduction(+ : sum)
  for (int64_t i = 0; i < p.numel(); ++i) sum += (double)(a[i] - b[i]) * (a[i] - b[i]);
  return sum / p.numel();
}
""", functions=["mse"])


class ModelNew(nn.Module):
    def forward(self, prediction, target):
        return torch.tensor(extension.mse(prediction, target))
