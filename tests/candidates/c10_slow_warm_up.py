# cheat: The first twelve calls sleep, so that an evaluator which plans by them makes few timed calls
# classes: 10
# problem: problems/relu.py
# verdict: correct
# most_gain: 1.25
# timed: yes
# fools: inprocess kernelbench subprocess
# twin: c06_tuned_by_clock.py
# note: It beats evaluators that make as many calls as fit into a budget, planned by the first ones, such as triton's do_bench. The
#    naive ones always make twenty.

import time

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="plain_relu", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  const float s = scale;
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = (a[i] > 0 ? a[i] : 0.0f) * s;
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls <= 12:
            time.sleep(0.02)
        return extension.scaled_relu(x, self.scale)
