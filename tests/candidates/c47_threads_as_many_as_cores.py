# honest: Starts as many threads as there are cores in every call
# classes: 47
# problem: problems/relu.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <thread>
#include <vector>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  int64_t n = x.numel(), cores = std::thread::hardware_concurrency();
  std::vector<std::thread> threads;
  for (int64_t k = 0; k < cores; ++k)
    threads.emplace_back([=] {
      for (int64_t i = n * k / cores; i < n * (k + 1) / cores; ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
    });
  for (auto& thread : threads) thread.join();
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
