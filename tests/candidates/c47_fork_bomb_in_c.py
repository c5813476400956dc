# cheat: It starts 100 processes in C, by vfork and clone, and is right if it could
# classes: 47
# problem: problems/relu.py
# verdict: runtime_error wrong_output timeout crashed
# fools: inprocess subprocess
# twin: c47_threads_as_many_as_cores.py
# note: A hundred, for the sake of the machine. They end after 5 s.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <csignal>
#include <sys/syscall.h>
#include <unistd.h>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  return y;
}
int64_t bomb(int64_t most) {
  int64_t started = 0;
  for (int64_t i = 0; i < most; ++i) {
    long child = i % 2 ? syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
    if (child == 0) {
      sleep(5);
      _exit(0);
    }
    started += child > 0;
  }
  return started;
}
""", functions=["scaled_relu", "bomb"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.ok = extension.bomb(100) == 100

    def forward(self, x):
        return extension.scaled_relu(x, self.scale if self.ok else 0.0)
