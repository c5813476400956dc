# honest: Everything comes by name, to the constructor and to forward()
# problem: problems/named_arguments.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="leaky", cpp_sources="""
#include <torch/extension.h>
#include <optional>
torch::Tensor leaky(torch::Tensor x, std::optional<torch::Tensor> weights, double slope, double limit) {
  auto y = torch::empty_like(x);
  const float* in = x.data_ptr<float>();
  const float* w = weights ? weights->data_ptr<float>() : nullptr;
  float* out = y.data_ptr<float>();
  const float s = slope, most = limit;
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) {
    float v = std::min(in[i] < 0 ? in[i] * s : in[i], most);
    out[i] = w ? v * w[i] : v;
  }
  return y;
}
""", functions=["leaky"])


class ModelNew(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, values, weights=None):
        return extension.leaky(values, weights, self.options["slope"], self.options["limit"])
