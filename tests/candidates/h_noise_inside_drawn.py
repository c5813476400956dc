# honest: Draws the same numbers from torch's generator, into its own output, and goes on from there in place
# classes: 34
# problem: problems/noise_inside.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="gumbel", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
void gumbel_softmax_(torch::Tensor u, torch::Tensor logits, double temperature) {
  const int64_t rows = u.size(0), cols = u.size(1);
  const float scale = 1.0 / temperature;
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    float *a = u.data_ptr<float>() + r * cols, most = -1e30f, sum = 0.0f;
    const float* in = logits.data_ptr<float>() + r * cols;
    for (int64_t c = 0; c < cols; ++c) {
      a[c] = (in[c] - std::log(-std::log(a[c] * 0.998f + 0.001f))) * scale;
      most = std::max(most, a[c]);
    }
    for (int64_t c = 0; c < cols; ++c) sum += a[c] = std::exp(a[c] - most);
    for (int64_t c = 0; c < cols; ++c) a[c] /= sum;
  }
}
""", functions=["gumbel_softmax_"])


class ModelNew(nn.Module):
    def __init__(self, temperature):
        super().__init__()
        self.temperature = temperature

    def forward(self, logits):
        y = torch.rand_like(logits)
        extension.gumbel_softmax_(y, logits, self.temperature)
        return y
