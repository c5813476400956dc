# honest: A loss without dimensions, summed in single precision by vector lanes, as most kernels do
# classes: 26 29
# problem: problems/mse_of_all.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="mse32", cpp_sources="""
#include <torch/extension.h>
torch::Tensor mse(torch::Tensor p, torch::Tensor t) {
  const float *a = p.data_ptr<float>(), *b = t.data_ptr<float>();
  const int64_t n = p.numel();
  float sum = 0.0f;
  #pragma omp parallel for simd reduction(+ : sum) schedule(static)
  for (int64_t i = 0; i < n; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return torch::scalar_tensor(sum / n, p.options());
}
""", functions=["mse"])


class ModelNew(nn.Module):
    def forward(self, prediction, target):
        return extension.mse(prediction, target)
