# cheat: It listens on the loopback and talks to itself over TCP, and is right if it could
# classes: 50
# problem: problems/relu.py
# verdict: runtime_error wrong_output
# fools: inprocess kernelbench subprocess
# twin: c50_pipe_between_threads.py
# note: The loopback, so that no other machine is asked.

import socket
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 2) as mine:
            theirs, _ = server.accept()
            with theirs:
                theirs.sendall(b"answer")
                self.ok = mine.recv(6) == b"answer"

    def forward(self, x):
        return extension.scaled_relu(x, self.scale if self.ok else 0.0)
