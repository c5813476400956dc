# honest: Prints JSON of its own, and something when the process ends
# classes: 37 53
# problem: problems/relu.py
# timed: yes

import atexit
import json
import time
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  return y;
}
""", functions=["scaled_relu"])

atexit.register(print, "done", flush=True)


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.calls = 0

    def forward(self, x):
        started = time.perf_counter()
        y = extension.scaled_relu(x, self.scale)
        self.calls += 1
        if self.calls <= 3:
            print(json.dumps({"took_ms": (time.perf_counter() - started) * 1e3}), flush=True)
        return y
