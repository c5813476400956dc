# honest: The output lies in memory that the kernel allocates itself, aligned to pages, with a deleter
# classes: 24
# problem: problems/bilinear_double.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="bilinear", cpp_sources="""
#include <torch/extension.h>
#include <cstdlib>
torch::Tensor twice(torch::Tensor x) {
  const int64_t planes = x.size(0) * x.size(1), h = x.size(2), w = x.size(3);
  const size_t bytes = (planes * 4 * h * w * sizeof(float) + 4095) / 4096 * 4096;
  float* out = static_cast<float*>(std::aligned_alloc(4096, bytes));
  TORCH_CHECK(out != nullptr);
  #pragma omp parallel for
  for (int64_t p = 0; p < planes; ++p)
    for (int64_t i = 0; i < 2 * h; ++i)
      for (int64_t j = 0; j < 2 * w; ++j) {
        const float* in = x.data_ptr<float>() + p * h * w;
        const float fy = std::max(0.0f, 0.5f * i - 0.25f), fx = std::max(0.0f, 0.5f * j - 0.25f);
        const int64_t y0 = fy, x0 = fx, y1 = std::min(y0 + 1, h - 1), x1 = std::min(x0 + 1, w - 1);
        const float b = fy - y0, a = fx - x0;
        out[(p * 2 * h + i) * 2 * w + j] = (1 - b) * ((1 - a) * in[y0 * w + x0] + a * in[y0 * w + x1]) +
                                           b * ((1 - a) * in[y1 * w + x0] + a * in[y1 * w + x1]);
      }
  return torch::from_blob(out, {x.size(0), x.size(1), 2 * h, 2 * w}, [](void* p) { std::free(p); }, x.options());
}
""", functions=["twice"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.twice(x)
