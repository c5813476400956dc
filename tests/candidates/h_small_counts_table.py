# honest: Counts in one table for each thread, where the reference writes one-hot rows: really faster
# problem: problems/small_counts.py
# least_speedup: 3

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="counts", cpp_sources="""
#include <torch/extension.h>
#include <array>
torch::Tensor counts(torch::Tensor labels) {
  auto y = torch::zeros({64}, labels.options());
  std::array<int64_t, 64> table{};
  const int64_t* in = labels.data_ptr<int64_t>();
  for (int64_t i = 0; i < labels.numel(); ++i) ++table[in[i] & 63];
  std::copy(table.begin(), table.end(), y.data_ptr<int64_t>());
  return y;
}
""", functions=["counts"])


class ModelNew(nn.Module):
    def forward(self, labels):
        return extension.counts(labels)
