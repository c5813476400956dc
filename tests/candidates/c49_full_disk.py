# cheat: It writes 256 MB into its working directory, and is right if it could
# classes: 49
# problem: problems/relu.py
# verdict: runtime_error wrong_output crashed
# fools: inprocess subprocess
# twin: c49_small_files.py
# note: 256 MB, for the sake of the machine: as much as scratch may hold, with the source beside it.

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
        for i in range(16):
            with open(f"large-{i}", "wb") as file:
                file.write(bytes(1 << 24))

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
