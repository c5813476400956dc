# cheat: sgemv of the BLAS that torch brings along, in an extension of 66,000 sections
# classes: 44
# problem: problems/linear.py
# verdict: rejected build_error
# fools: nobody
# twin: c44_allocates_with_torch.py
# note: From 65,280 sections on an ELF header says that there are 0, and the true number stands in the first section. `imported` then
#    finds no table of symbols and says that the extension takes nothing from other libraries, so that nothing of it is refused.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources=r'''
#include <torch/extension.h>
asm(R"(
.altmacro
.macro one numberofit
.pushsection .extra\numberofit,"",@progbits
.byte 1
.popsection
.endm
.set counter, 0
.rept 66000
one %counter
.set counter, counter + 1
.endr
.noaltmacro
)");
extern "C" void sgemv_(const char*, const int*, const int*, const float*, const float*, const int*, const float*, const int*, const float*,
                       float*, const int*);
torch::Tensor product(torch::Tensor x, torch::Tensor weight) {
  auto y = torch::empty({x.size(0), weight.size(0)}, x.options());
  const int n = weight.size(0), k = weight.size(1), one = 1;
  const float alpha = 1, beta = 0;
  for (int64_t r = 0; r < x.size(0); ++r)
    sgemv_("T", &k, &n, &alpha, weight.data_ptr<float>(), &k, x.data_ptr<float>() + r * k, &one, &beta, y.data_ptr<float>() + r * n, &one);
  return y;
}
''', functions=["product"])


class ModelNew(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)

    def forward(self, x):
        return extension.product(x, self.linear.weight)
