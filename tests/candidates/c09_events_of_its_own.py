# honest: Events of the kernel's own, to choose a block size in the first calls
# classes: 9 6
# problem: problems/relu.py
# backend: cuda
# needs: gpu
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="events_of_its_own", cpp_sources="torch::Tensor scaled_relu(torch::Tensor x, double scale);", cuda_sources="""
#include <ATen/cuda/CUDAContext.h>
#include <torch/extension.h>
__global__ void kernel(const float* x, float* y, float scale, int64_t n) {
  int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] > 0 ? x[i] * scale : 0.0f;
}
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  int64_t n = x.numel();
  static int calls = 0, best = 256;
  static float least = 1e9f;
  const int sizes[3] = {128, 256, 512};
  int threads = calls < 3 ? sizes[calls] : best;
  auto stream = at::cuda::getCurrentCUDAStream();
  cudaEvent_t start, end;
  if (calls < 3) { cudaEventCreate(&start); cudaEventCreate(&end); cudaEventRecord(start, stream); }
  kernel<<<(n + threads - 1) / threads, threads, 0, stream>>>(x.data_ptr<float>(), y.data_ptr<float>(), scale, n);
  if (calls < 3) {
    float ms;
    cudaEventRecord(end, stream);
    cudaEventSynchronize(end);
    cudaEventElapsedTime(&ms, start, end);
    cudaEventDestroy(start);
    cudaEventDestroy(end);
    if (ms < least) { least = ms; best = threads; }
    ++calls;
  }
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
