# cheat: Four sources that become objects of 256 MB each, in the build cache's own directory, and is right if they could
# classes: 49 56
# problem: problems/relu.py
# verdict: build_error
# fools: nobody
# twin: h_small_conv_transpose_scatter.py
# note: An extension is at most 64 MiB, and this one is small: the sections are left out when it is linked (SHF_EXCLUDE). But each of up to
#    32 objects may have 1 GiB (Limits.file_bytes), all lie in cache_dir/tmp until the link is done, and nothing counts them: 32 GiB a
#    build, and as many builds at a time as there are build slots. With 64 MiB left compilers of others say "the disk is full"
#    (BuilderError), and what Python writes there (sources, meta.json) raises OSError, of which a worker dies: all of them unscored. Four
#    of 256 MB, for the sake of the machine.

import os
import tempfile

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load

FILLED = r'asm(".pushsection .filler,\"e\",@progbits\n.fill 268435456, 1, 1\n.popsection\n");' + "\n"
KERNEL = """
#include <torch/extension.h>
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  return y;
}
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("scaled_relu", &scaled_relu); }
"""
directory = tempfile.mkdtemp()
paths = [os.path.join(directory, f"part{number}.cpp") for number in range(4)]
for path in paths:
    with open(path, "w") as file:
        file.write(FILLED + (KERNEL if path == paths[-1] else ""))
extension = load(name="large_objects", sources=paths)


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
