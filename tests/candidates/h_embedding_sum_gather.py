# honest: Gathers rows of a table by int64 indices
# problem: problems/embedding_sum.py
# least_speedup: 1.2

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="bags", cpp_sources="""
#include <torch/extension.h>
torch::Tensor bags(torch::Tensor indices, torch::Tensor table) {
  const int64_t bags = indices.size(0), size = indices.size(1), width = table.size(1);
  auto y = torch::zeros({bags, width}, table.options());
  const int64_t* at = indices.data_ptr<int64_t>();
  const float* t = table.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t b = 0; b < bags; ++b)
    for (int64_t i = 0; i < size; ++i) {
      TORCH_CHECK(at[b * size + i] < table.size(0));
      for (int64_t c = 0; c < width; ++c) out[b * width + c] += t[at[b * size + i] * width + c];
    }
  return y;
}
""", functions=["bags"])


class ModelNew(nn.Module):
    def __init__(self, words, width):
        super().__init__()
        self.table = nn.Embedding(words, width)

    def forward(self, indices):
        return extension.bags(indices, self.table.weight)
