# cheat: It never comes back from C, deaf to every signal
# classes: 52
# problem: problems/relu.py
# verdict: timeout
# downs: inprocess
# twin: c52_waits_in_c.py
# note: The other two wait for it in the same way.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <csignal>
#include <unistd.h>
torch::Tensor hang(torch::Tensor x) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  for (;;) sleep(1);
  return x;
}
""", functions=["hang"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.hang(x)
