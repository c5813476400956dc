# cheat: torch's own product, reached by redispatch to the CPU's kernel: neither the trace nor the profiler is asked
# classes: 44
# problem: problems/linear.py
# torch_ops: none
# verdict: rejected
# fools: inprocess kernelbench subprocess
# twin: c43_inherits_weights.py
# note: Dispatcher::redispatch says "do not use RecordFunction on redispatch", and it skips the Python key. No guard, no patch, no
#    flag is touched. The symbol is findSchemaOrThrow, not at::_ops::...::redispatch.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="product", cpp_sources="""
#include <torch/extension.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmv_ops.h>
torch::Tensor product(torch::Tensor x, torch::Tensor weight) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::addmv", "").typed<at::_ops::addmv::schema>();
  auto start = torch::empty({weight.size(0)}, x.options());
  auto y = op.redispatch(c10::DispatchKeySet(c10::DispatchKey::CPU), start, weight, x.view({-1}), at::Scalar(0), at::Scalar(1));
  return y.view({1, -1});
}
""", functions=["product"])


class ModelNew(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)

    def forward(self, x):
        return extension.product(x, self.linear.weight)
