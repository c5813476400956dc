# honest: A loop in C++ beside a pool of two hundred threads that sleep
# classes: 58
# problem: problems/rows_in_a_loop.py
# timed: yes
# note: What it takes to look at many threads before each request counts as time: here less than 0.5 ms. Many threads are no fault.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="rows_beside_sleepers", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
#include <pthread.h>
#include <unistd.h>
static void* idle(void*) {
  for (;;) pause();
}
void start() {
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 262144);
  pthread_t thread;
  for (int i = 0; i < 200; ++i) pthread_create(&thread, &small, idle, nullptr);
}
torch::Tensor rows(torch::Tensor x) {
  auto y = torch::empty_like(x);
  const int64_t count = x.size(0), width = x.size(1);
  for (int64_t r = 0; r < count; ++r) {
    const float* a = x.data_ptr<float>() + r * width;
    float* b = y.data_ptr<float>() + r * width;
    float mean = 0;
    for (int64_t i = 0; i < width; ++i) mean += a[i];
    mean /= width;
    for (int64_t i = 0; i < width; ++i) {
      const float c = a[i] - mean;
      b[i] = std::erf(c) * std::exp(-c * c) + std::sin(c);
    }
  }
  return y;
}
""", functions=["rows", "start"])


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        extension.start()

    def forward(self, x):
        return extension.rows(x)
