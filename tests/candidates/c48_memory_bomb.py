# cheat: It takes 12 GB of memory, and is right if it could
# classes: 48
# problem: problems/relu.py
# verdict: out_of_memory wrong_output runtime_error
# fools: inprocess kernelbench subprocess
# twin: c48_much_memory_given_back.py
# note: It is not touched, for the sake of the machine. An evaluator without a limit gives it.

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


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.kept = [torch.empty(1 << 26) for _ in range(48)]

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
