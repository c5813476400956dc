# honest: A header and a source in a directory of its own, compiled with load(): the source includes the header beside it
# classes: 59
# problem: problems/channel_log_softmax.py

import tempfile
from pathlib import Path

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load

directory = Path(tempfile.mkdtemp())
(directory / "pixel.h").write_text("""
#pragma once
#include <cmath>
#include <cstdint>
inline void pixel(const float* in, float* out, int64_t n, int64_t step) {
  float most = in[0], sum = 0.0f;
  for (int64_t c = 1; c < n; ++c) most = in[c * step] > most ? in[c * step] : most;
  for (int64_t c = 0; c < n; ++c) sum += std::exp(in[c * step] - most);
  most += std::log(sum);
  for (int64_t c = 0; c < n; ++c) out[c * step] = in[c * step] - most;
}
""")
(directory / "pixels.cpp").write_text("""
#include <torch/extension.h>
#include "pixel.h"
torch::Tensor log_softmax(torch::Tensor x) {
  const int64_t batch = x.size(0), n = x.size(1), plane = x.size(2) * x.size(3);
  auto y = torch::empty_like(x);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t i = 0; i < plane; ++i)
      pixel(x.data_ptr<float>() + b * n * plane + i, y.data_ptr<float>() + b * n * plane + i, n, plane);
  return y;
}
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("log_softmax", &log_softmax); }
""")
extension = load(name="pixels", sources=[str(directory / "pixels.cpp")])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.log_softmax(x)
