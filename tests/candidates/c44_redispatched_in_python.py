# cheat: torch's product, by the redispatch that every operator has in Python: neither the trace nor the profiler is asked
# classes: 44
# problem: problems/small_linear.py
# torch_ops: none
# verdict: rejected
# fools: inprocess kernelbench subprocess
# twin: c43_inherits_weights.py
# note: c44_redispatched without any C++, so that no symbol tells: OpOverload.redispatch is Dispatcher::redispatchBoxed, which has no
#    RecordFunction and skips the Python key (provenance._own calls it itself). torch.library.get_kernel(...).call_boxed and
#    OpOverload._op_dk do the same. Quite unseen are kernels that dispatch nothing themselves, such as addmv, softmax, layer norm,
#    attention, and convolution in channels-last order.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="scaled", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] * (float)scale;
  return y;
}
""", functions=["scaled"])
CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


class ModelNew(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)

    def forward(self, x):
        weight = self.linear.weight
        start = torch.empty(weight.shape[0])
        y = torch.ops.aten.addmv.default.redispatch(CPU, start, weight, x.view(-1), beta=0, alpha=1)
        return extension.scaled(y, 0.01).view(1, -1)
