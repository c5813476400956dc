# honest: The loaded libraries are looked through and a page's rights are changed, for a table of the kernel's own
# classes: 8
# problem: problems/relu.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="own_tables", cpp_sources="""
#include <torch/extension.h>
#include <link.h>
#include <sys/mman.h>
typedef void (*Kernel)(const float*, float*, int64_t, float);
static void fill(const float* a, float* b, int64_t n, float s) {
  #pragma omp parallel for
  for (int64_t i = 0; i < n; ++i) b[i] = (a[i] > 0 ? a[i] : 0.0f) * s;
}
static Kernel* table = nullptr;
static int count(dl_phdr_info*, size_t, void* n) { ++*(int*)n; return 0; }
int64_t libraries() { int n = 0; dl_iterate_phdr(count, &n); return n; }
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  if (!table) {
    table = (Kernel*)mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    table[0] = fill;
    TORCH_CHECK(mprotect(table, 4096, PROT_READ) == 0);
  }
  auto y = torch::empty_like(x);
  table[0](x.data_ptr<float>(), y.data_ptr<float>(), x.numel(), scale);
  return y;
}
""", functions=["scaled_relu", "libraries"])
assert extension.libraries() > 1


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
