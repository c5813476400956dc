# cheat: Of a bfloat16 output with a large and a small part, only the large one is computed
# classes: 25 32
# problem: problems/two_parts_bfloat.py
# verdict: wrong_output
# timed: yes
# fools: inprocess subprocess
# claims: 1.2
# twin: c25_both_parts_in_bfloat.py
# note: Parts of 4,096 elements were only held where they differ by more than 4 times 4e-3 of the whole tensor's scale in bfloat16, which
#    is 400 times what a softmax of so many columns is (in float16 2e-3: 50 times).

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
using bf16 = at::BFloat16;
torch::Tensor parts(torch::Tensor x) {
  int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty({rows, 2 * cols}, x.options());
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const bf16* a = x.data_ptr<bf16>() + r * cols;
    bf16* b = y.data_ptr<bf16>() + r * 2 * cols;
    for (int64_t i = 0; i < cols; ++i) b[i] = (float)a[i] * 2.0f;
    b += cols;
    for (int64_t i = 0; i < cols; ++i) b[i] = 0.0f;
  }
  return y;
}
""", functions=["parts"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.parts(x)
