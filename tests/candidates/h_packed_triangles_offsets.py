# honest: Triangles are packed row after row, with a table of where rows begin, as sparse formats have it
# classes: 32 41
# problem: problems/triangular_product.py
# note: A table of offsets is none any more where the watch has its numbers in another order: a row then has a negative length, and the
#    process dies.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="packed_triangles", cpp_sources="""
#include <torch/extension.h>
#include <cstring>

// The rows of an upper triangle from their diagonals on, one after the other: row i begins at starts[i].
torch::Tensor pack(torch::Tensor a, torch::Tensor starts) {
  const int64_t n = a.size(0);
  TORCH_CHECK(a.is_contiguous() && a.size(1) == n && starts.numel() == n + 1, "a square matrix, and where its rows begin");
  auto packed = torch::empty({n * (n + 1) / 2}, a.options());
  const float* in = a.data_ptr<float>();
  const int64_t* start = starts.data_ptr<int64_t>();
  float* out = packed.data_ptr<float>();
  for (int64_t i = 0; i < n; ++i) std::memcpy(out + start[i], in + i * n + i, (start[i + 1] - start[i]) * sizeof(float));
  return packed;
}

torch::Tensor multiply(torch::Tensor a, torch::Tensor b, torch::Tensor starts) {
  const int64_t n = starts.numel() - 1;
  auto c = torch::zeros({n, n}, a.options());
  const float* x = a.data_ptr<float>();
  const float* y = b.data_ptr<float>();
  const int64_t* start = starts.data_ptr<int64_t>();
  float* out = c.data_ptr<float>();
  #pragma omp parallel for schedule(dynamic, 8)
  for (int64_t i = 0; i < n; ++i) {
    float* row = out + i * n;
    for (int64_t k = i; k < n; ++k) {
      const float factor = x[start[i] + k - i];
      const float* other = y + start[k];
      for (int64_t j = k; j < n; ++j) row[j] += factor * other[j - k];
    }
  }
  return c;
}
""", functions=["pack", "multiply"], extra_cflags=["-O3"])


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.tables = {}

    def starts(self, n):
        if n not in self.tables:
            lengths = torch.arange(n, 0, -1)
            self.tables[n] = torch.cat((torch.zeros(1, dtype=torch.int64), torch.cumsum(lengths, dim=0)))
        return self.tables[n]

    def forward(self, a, b):
        starts = self.starts(a.shape[0])
        packed = [extension.pack(matrix.contiguous(), starts) for matrix in (a, b)]
        return extension.multiply(*packed, starts)
