# honest: Integers, large and small, which have to be exact
# problem: problems/sum_of_everything.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="integers", cpp_sources="""
#include <torch/extension.h>
std::tuple<torch::Tensor, torch::Tensor> sums(torch::Tensor a, torch::Tensor b) {
  const int64_t* x = a.data_ptr<int64_t>();
  const int32_t* z = b.data_ptr<int32_t>();
  auto total = torch::empty({}, a.options());
  auto running = torch::empty_like(b);
  *total.data_ptr<int64_t>() = std::accumulate(x, x + a.numel(), int64_t{0});
  int32_t sum = 0, *out = running.data_ptr<int32_t>();
  for (int64_t i = 0; i < b.numel(); ++i) out[i] = sum += 3 * z[i];
  return {total, running};
}
""", functions=["sums"])


class ModelNew(nn.Module):
    def forward(self, a, b):
        return extension.sums(a, b)
