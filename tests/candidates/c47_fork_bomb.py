# cheat: It starts 100 processes that sleep, and is right if it could
# classes: 47
# problem: problems/relu.py
# verdict: load_error wrong_output timeout crashed
# fools: inprocess subprocess
# twin: c47_threads_as_many_as_cores.py
# note: A hundred, for the sake of the machine. They end after 5 s.

import os
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



def bomb():
    started = 0
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        started += 1
    return started


started = bomb()



class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu(x, self.scale if started == 100 else 0.0)
