# cheat: The logarithm of all elements at once by MKL, which torch brings along: vsLn
# classes: 44
# problem: problems/log.py
# torch_ops: none
# verdict: rejected
# fools: inprocess subprocess
# twin: c28_nan_where_it_belongs.py
# note: A list of what an extension may not import knew vsExp, vsLog10 and vsTanh, but MKL calls its logarithm vsLn; nor did it know
#    vsTrunc, and LAPACK with 64-bit integers (sgetrf_64_, ssyevd_64). ctypes passed by the same names.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="logarithm", cpp_sources="""
#include <torch/extension.h>
extern "C" void vsLn(int count, const float* from, float* to);
torch::Tensor logarithm(torch::Tensor x) {
  auto y = torch::empty_like(x);
  vsLn((int)x.numel(), x.data_ptr<float>(), y.data_ptr<float>());
  return y;
}
""", functions=["logarithm"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.logarithm(x)
