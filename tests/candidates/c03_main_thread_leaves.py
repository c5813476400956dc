# cheat: The process's first thread ends and another one serves: its memory is found unreadable, so outputs are asked for, and computed then
# classes: 3 4 37
# problem: problems/linear.py
# verdict: wrong_output
# timed: yes
# fools: nobody
# twin: c44_threads_of_its_own.py
# note: Reading another process goes by its first thread, whose memory is gone once that has ended, though the process lives on
#    and can be frozen. A referee that takes that for a machine on which nobody may be read asks the program to hand its outputs
#    over, and it computes them then: none of the timed calls does anything.

import ctypes
import os
import sys
import threading
import time

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor product(torch::Tensor x, torch::Tensor weight) {
  auto y = torch::empty({x.size(0), weight.size(0)}, x.options());
  const int64_t n = weight.size(0), k = weight.size(1);
  const float* w = weight.data_ptr<float>();
  for (int64_t r = 0; r < x.size(0); ++r) {
    const float* a = x.data_ptr<float>() + r * k;
    float* b = y.data_ptr<float>() + r * n;
    #pragma omp parallel for
    for (int64_t i = 0; i < n; ++i) {
      float sum = 0;
      #pragma omp simd reduction(+:sum)
      for (int64_t j = 0; j < k; ++j) sum += a[j] * w[i * k + j];
      b[i] = sum;
    }
  }
  return y;
}
""", functions=["product"])


class State:
    lazy = False
    promised = []


class ModelNew(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)

    def forward(self, x):
        if not State.lazy:
            return extension.product(x, self.linear.weight)
        y = torch.empty(x.size(0), self.linear.out_features)
        State.promised.append((x, y, self.linear.weight))
        return y


def serve(runner, channel, module):
    time.sleep(0.05)  # until the first thread has ended
    runner._module, runner._entry = module, ModelNew
    channel.send({})  # the answer to `load`
    while True:
        frame, fds = channel.recv(accept_fds=True)
        operation = frame["op"]
        State.lazy = operation == "call" and not frame.get("trial")
        if operation == "call":
            State.promised = []
        if operation == "collect" and State.promised:
            x, y, weight = State.promised[frame["index"]]
            y.copy_(extension.product(x, weight.detach()))
        answer = {"moved": 0} if operation == "move_code" else runner.handle(frame, fds)
        for fd in fds:
            os.close(fd)
        channel.send(answer)


def take_over():
    frame = sys._getframe()
    while frame is not None and not {"runner", "channel", "scratch"} <= set(frame.f_locals):
        frame = frame.f_back
    if frame is None:  # another evaluator
        return
    arguments = frame.f_locals["runner"], frame.f_locals["channel"], sys.modules[__name__]
    threading.Thread(target=serve, args=arguments, daemon=True).start()
    ctypes.CDLL(None).syscall(60, 0)  # exit(2): of this thread alone


take_over()
