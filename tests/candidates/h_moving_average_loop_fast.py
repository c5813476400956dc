# honest: A loop in C++ where the reference loops in Python: really many times as fast
# classes: 12
# problem: problems/moving_average_loop.py
# least_speedup: 10

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="average", cpp_sources="""
#include <torch/extension.h>
torch::Tensor average(torch::Tensor x, double decay) {
  const int64_t steps = x.size(0), width = x.size(1);
  auto y = torch::empty_like(x);
  const float *in = x.data_ptr<float>(), d = decay;
  float* out = y.data_ptr<float>();
  std::vector<float> state(in, in + width);
  for (int64_t t = 0; t < steps; ++t)
    for (int64_t c = 0; c < width; ++c) out[t * width + c] = state[c] = d * state[c] + (1.0f - d) * in[t * width + c];
  return y;
}
""", functions=["average"])


class ModelNew(nn.Module):
    def __init__(self, decay):
        super().__init__()
        self.decay = decay

    def forward(self, x):
        return extension.average(x, self.decay)
