# honest: A stream made in C++ waits for the current one, and is waited for
# classes: 2 1
# problem: problems/relu.py
# backend: cuda
# needs: gpu
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="stream_waited_for", cpp_sources="torch::Tensor scaled_relu(torch::Tensor x, double scale);", cuda_sources="""
#include <ATen/cuda/CUDAContext.h>
#include <torch/extension.h>
__global__ void kernel(const float* x, float* y, float scale, int64_t n) {
  int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] > 0 ? x[i] * scale : 0.0f;
}
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  int64_t n = x.numel();
  static cudaStream_t stream = [] { cudaStream_t s; cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking); return s; }();
  static cudaEvent_t event = [] { cudaEvent_t e; cudaEventCreateWithFlags(&e, cudaEventDisableTiming); return e; }();
  cudaEventRecord(event, at::cuda::getCurrentCUDAStream());
  cudaStreamWaitEvent(stream, event, 0);
  kernel<<<(n + 255) / 256, 256, 0, stream>>>(x.data_ptr<float>(), y.data_ptr<float>(), scale, n);
  cudaEventRecord(event, stream);
  cudaStreamWaitEvent(at::cuda::getCurrentCUDAStream(), event, 0);
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
