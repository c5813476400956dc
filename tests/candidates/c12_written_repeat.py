# honest: The output is written, once for each repetition, into memory that was mapped for it
# classes: 12
# problem: problems/repeat.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="written_repeat", cpp_sources="""
#include <torch/extension.h>
#include <cstring>
#include <sys/mman.h>
static const int64_t REPEATS = 64;
torch::Tensor relu_repeat(torch::Tensor x) {
  int64_t n = x.numel(), bytes = n * 4;
  std::vector<float> y(n);
  const float* a = x.data_ptr<float>();
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] > 0 ? a[i] : 0.0f;
  char* all = (char*)mmap(nullptr, bytes * REPEATS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  TORCH_CHECK(all != MAP_FAILED);
  #pragma omp parallel for
  for (int64_t i = 0; i < REPEATS; ++i) std::memcpy(all + i * bytes, y.data(), bytes);
  auto free = [bytes](void* p) { munmap(p, bytes * REPEATS); };
  return torch::from_blob(all, {x.size(0) * REPEATS, x.size(1)}, free, x.options());
}
""", functions=["relu_repeat"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.relu_repeat(x)
