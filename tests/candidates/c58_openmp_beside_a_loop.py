# honest: OpenMP where the reference is a loop on one thread
# classes: 58
# problem: problems/moving_average_loop.py
# timed: yes
# note: On two cores it passes. On a slot of many each message is charged (cores - 1) times 0.07 ms of CPU time, in which the workers
#    look for work, less 0.2 ms: the reference's program has none, so "usual" allows nothing. On 16 cores that is 0.8 ms for a call of
#    20 us.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="average", cpp_sources="""
#include <torch/extension.h>
torch::Tensor average(torch::Tensor x, double decay) {
  auto y = torch::empty_like(x);
  const int64_t steps = x.size(0), width = x.size(1);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  const float keep = decay, take = 1.0 - decay;
  #pragma omp parallel for
  for (int64_t block = 0; block < width / 8; ++block) {
    float state[8];
    for (int64_t i = 0; i < 8; ++i) state[i] = a[block * 8 + i];
    for (int64_t t = 0; t < steps; ++t)
      for (int64_t i = 0; i < 8; ++i) b[t * width + block * 8 + i] = state[i] = keep * state[i] + take * a[t * width + block * 8 + i];
  }
  return y;
}
""", functions=["average"])


class ModelNew(nn.Module):
    def __init__(self, decay):
        super().__init__()
        self.decay = decay

    def forward(self, x):
        return extension.average(x, self.decay)
