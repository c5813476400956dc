# honest: NaN and infinity where the reference has them
# classes: 28
# problem: problems/guarded_log.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="logs", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
torch::Tensor logs(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t i = 0; i < x.numel(); ++i) out[i] = std::log(std::nearbyint(in[i] * 4.0f) / 4.0f);
  return y;
}
""", functions=["logs"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.logs(x)
