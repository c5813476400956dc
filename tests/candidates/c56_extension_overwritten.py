# cheat: It opens the built extension for writing, and is right if it could
# classes: 56
# problem: problems/relu.py
# verdict: runtime_error wrong_output
# fools: inprocess kernelbench subprocess
# twin: c56_two_of_one_name.py
# note: The byte that it writes is the one that stands there, for the sake of the cache. It beats evaluators whose candidates may write
#    to the cache; ours may, but are not run with it.

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
        with open(extension.__file__, "r+b") as file:
            first = file.read(1)
            file.seek(0)
            self.ok = file.write(first) == 1

    def forward(self, x):
        return extension.scaled_relu(x, self.scale if self.ok else 0.0)
