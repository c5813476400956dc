# honest: The source is written to a directory of its own and compiled with load()
# classes: 38 49 59
# problem: problems/channel_log_softmax.py
# timed: yes

import os
import tempfile

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load

SOURCE = """
#include <torch/extension.h>
#include <cmath>
torch::Tensor log_softmax(torch::Tensor x) {
  const int64_t batch = x.size(0), n = x.size(1), plane = x.size(2) * x.size(3);
  auto y = torch::empty_like(x);
  #pragma omp parallel
  {
    std::vector<float> most(plane), sum(plane);
    #pragma omp for
    for (int64_t b = 0; b < batch; ++b) {
      const float* in = x.data_ptr<float>() + b * n * plane;
      float* out = y.data_ptr<float>() + b * n * plane;
      std::copy(in, in + plane, most.begin());
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (int64_t c = 1; c < n; ++c)
        for (int64_t i = 0; i < plane; ++i) most[i] = std::max(most[i], in[c * plane + i]);
      for (int64_t c = 0; c < n; ++c)
        for (int64_t i = 0; i < plane; ++i) sum[i] += std::exp(in[c * plane + i] - most[i]);
      for (int64_t i = 0; i < plane; ++i) most[i] += std::log(sum[i]);
      for (int64_t c = 0; c < n; ++c)
        for (int64_t i = 0; i < plane; ++i) out[c * plane + i] = in[c * plane + i] - most[i];
    }
  }
  return y;
}
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("log_softmax", &log_softmax); }
"""

directory = tempfile.mkdtemp(prefix="kernel-")
path = os.path.join(directory, "log_softmax.cpp")
with open(path, "w") as file:
    file.write(SOURCE)
extension = load(name="log_softmax", sources=[path], extra_cflags=["-O3", "-ffast-math"], build_directory=directory, verbose=True)


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.log_softmax(x)
