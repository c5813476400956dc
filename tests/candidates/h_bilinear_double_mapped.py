# honest: The output lies in private memory from mmap(), given back by its deleter
# classes: 24
# problem: problems/bilinear_double.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="bilinear_map", cpp_sources="""
#include <torch/extension.h>
#include <sys/mman.h>
torch::Tensor twice(torch::Tensor x) {
  const int64_t planes = x.size(0) * x.size(1), h = x.size(2), w = x.size(3);
  const size_t bytes = planes * 4 * h * w * sizeof(float);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  TORCH_CHECK(memory != MAP_FAILED);
  float* out = static_cast<float*>(memory);
  #pragma omp parallel for
  for (int64_t p = 0; p < planes; ++p)
    for (int64_t i = 0; i < 2 * h; ++i)
      for (int64_t j = 0; j < 2 * w; ++j) {
        const float* in = x.data_ptr<float>() + p * h * w;
        const int64_t y0 = std::max<int64_t>(0, (i - 1) / 2), x0 = std::max<int64_t>(0, (j - 1) / 2);
        const int64_t y1 = i == 0 ? 0 : std::min(y0 + 1, h - 1), x1 = j == 0 ? 0 : std::min(x0 + 1, w - 1);
        const float b = i % 2 ? 0.25f : 0.75f, a = j % 2 ? 0.25f : 0.75f;
        out[(p * 2 * h + i) * 2 * w + j] = (1 - b) * ((1 - a) * in[y0 * w + x0] + a * in[y0 * w + x1]) +
                                           b * ((1 - a) * in[y1 * w + x0] + a * in[y1 * w + x1]);
      }
  return torch::from_blob(out, {x.size(0), x.size(1), 2 * h, 2 * w}, [bytes](void* p) { munmap(p, bytes); }, x.options());
}
""", functions=["twice"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.twice(x)
