# honest: A table of all 256 answers for each channel, made in __init__: nothing of the input is remembered
# classes: 19 23
# problem: problems/byte_images.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="bytes_", cpp_sources="""
#include <torch/extension.h>
torch::Tensor normalised(torch::Tensor images, torch::Tensor table) {
  const int64_t batch = images.size(0), h = images.size(1), w = images.size(2);
  auto y = torch::empty({batch, 3, h, w}, table.options());
  const uint8_t* in = images.data_ptr<uint8_t>();
  const float* t = table.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t i = 0; i < h * w; ++i)
      for (int64_t c = 0; c < 3; ++c) out[(n * 3 + c) * h * w + i] = t[c * 256 + in[(n * h * w + i) * 3 + c]];
  return y;
}
""", functions=["normalised"])


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        levels = torch.arange(256).float() / 255.0
        mean, std = torch.tensor([0.48, 0.45, 0.40]), torch.tensor([0.22, 0.21, 0.23])
        self.table = ((levels[None] - mean[:, None]) / std[:, None]).contiguous()

    def forward(self, images):
        return extension.normalised(images, self.table)
