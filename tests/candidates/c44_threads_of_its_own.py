# honest: Its own loop on two threads of its own, where torch computes nothing
# classes: 44
# problem: problems/linear.py
# torch_ops: none

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <thread>
static void rows(const float* x, const float* weight, float* y, int64_t from, int64_t to, int64_t k) {
  for (int64_t i = from; i < to; ++i) {
    float sum = 0;
    #pragma omp simd reduction(+:sum)
    for (int64_t j = 0; j < k; ++j) sum += x[j] * weight[i * k + j];
    y[i] = sum;
  }
}
torch::Tensor product(torch::Tensor x, torch::Tensor weight) {
  auto y = torch::empty({x.size(0), weight.size(0)}, x.options());
  const float* w = weight.data_ptr<float>();
  const int64_t n = weight.size(0), k = weight.size(1);
  for (int64_t r = 0; r < x.size(0); ++r) {
    const float* a = x.data_ptr<float>() + r * k;
    float* b = y.data_ptr<float>() + r * n;
    std::thread worker(rows, a, w, b, 0, n / 2, k);
    rows(a, w, b, n / 2, n, k);
    worker.join();
  }
  return y;
}
""", functions=["product"])


class ModelNew(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)

    def forward(self, x):
        return extension.product(x, self.linear.weight)
