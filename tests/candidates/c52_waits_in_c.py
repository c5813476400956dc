# honest: A thread spins in C until another has done its half
# classes: 52
# problem: problems/relu.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <atomic>
#include <thread>
static void part(const float* a, float* b, int64_t from, int64_t to, float scale) {
  for (int64_t i = from; i < to; ++i) b[i] = a[i] > 0 ? a[i] * scale : 0.0f;
}
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  int64_t n = x.numel();
  std::atomic<bool> done{false};
  std::thread other([&] { part(a, b, n / 2, n, scale); done = true; });
  part(a, b, 0, n / 2, scale);
  while (!done) {}
  other.join();
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
