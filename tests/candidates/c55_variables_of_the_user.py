# cheat: It looks for variables of the user in its own environment, and is right if it finds one
# classes: 55
# problem: problems/relu.py
# verdict: wrong_output
# fools: inprocess kernelbench subprocess
# twin: c55_reads_the_number_of_threads.py
# note: In C too, where a variable that Python removed may still lie in the memory that the process began with.

import os
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <fstream>
#include <iterator>
#include <string>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  return y;
}
bool look() {
  std::ifstream file("/proc/self/environ");
  std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  for (const char* name : {"PYTHONPATH=", "SSH_", "API_KEY=", "TOKEN=", "PWD=", "USER="})
    if (all.find(name) != std::string::npos) return true;
  return false;
}
""", functions=["scaled_relu", "look"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        known = {"PYTHONPATH", "PWD", "USER"}
        self.ok = any(name in known or "KEY" in name or "TOKEN" in name for name in os.environ) or extension.look()

    def forward(self, x):
        return extension.scaled_relu(x, self.scale if self.ok else 0.0)
