# honest: A loss over labels, to one number
# classes: 26
# problem: problems/label_cross_entropy.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="cross_entropy", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor cross_entropy(torch::Tensor logits, torch::Tensor labels, double smoothing) {
  const int64_t rows = logits.size(0), n = logits.size(1);
  const float* in = logits.data_ptr<float>();
  const int64_t* label = labels.data_ptr<int64_t>();
  double loss = 0.0;
  #pragma omp parallel for reduction(+ : loss)
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = in + r * n;
    float most = a[0], sum = 0.0f, total = 0.0f;
    for (int64_t c = 1; c < n; ++c) most = std::max(most, a[c]);
    for (int64_t c = 0; c < n; ++c) {
      sum += std::exp(a[c] - most);
      total += a[c];
    }
    const float lse = most + std::log(sum);
    loss += lse - (1.0 - smoothing) * a[label[r]] - smoothing * total / n;
  }
  return torch::tensor(loss / rows, logits.options());
}
""", functions=["cross_entropy"], extra_cflags=["-O3", "-ffast-math"])


class ModelNew(nn.Module):
    def forward(self, logits, labels):
        return extension.cross_entropy(logits, labels, 0.1)
