# cheat: sgemm of the BLAS that torch brings along
# classes: 44
# problem: problems/linear.py
# verdict: rejected
# fools: inprocess kernelbench subprocess
# twin: c44_allocates_with_torch.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
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
""", functions=["product"])


class ModelNew(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)

    def forward(self, x):
        return extension.product(x, self.linear.weight)
