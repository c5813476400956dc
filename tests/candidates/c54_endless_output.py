# cheat: It prints without end
# classes: 54
# problem: problems/relu.py
# verdict: timeout crashed
# downs: inprocess
# twin: c54_much_output.py
# note: After 256 MB it goes on slowly, and ends after 90 s, for the sake of the machine. The other two wait for it in the same way.

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


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        printed, end = 0, time.monotonic() + 90
        while time.monotonic() < end:
            printed += os.write(1, b"x" * (1 << 16))
            if printed > 1 << 28:
                time.sleep(1)
        return extension.scaled_relu(x, self.scale)
