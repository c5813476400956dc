# honest: A window of the second cache for what two kernels of one call share, given back at its end
# classes: 13 14
# problem: problems/relu.py
# backend: cuda
# needs: gpu
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="window_given_back", cpp_sources="torch::Tensor scaled_relu(torch::Tensor x, double scale);", cuda_sources="""
#include <ATen/cuda/CUDAContext.h>
#include <torch/extension.h>
__global__ void kernel(const float* x, float* y, float scale, int64_t n) {
  int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i] > 0 ? x[i] * scale : 0.0f;
}
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  int64_t n = x.numel();
  auto stream = at::cuda::getCurrentCUDAStream();
  auto between = torch::empty_like(x);
  cudaStreamAttrValue window = {};
  window.accessPolicyWindow.base_ptr = between.data_ptr();
  window.accessPolicyWindow.num_bytes = n * 4;
  window.accessPolicyWindow.hitRatio = 1.0f;
  window.accessPolicyWindow.hitProp = cudaAccessPropertyPersisting;
  window.accessPolicyWindow.missProp = cudaAccessPropertyStreaming;
  cudaStreamSetAttribute(stream, cudaStreamAttributeAccessPolicyWindow, &window);
  kernel<<<(n + 255) / 256, 256, 0, stream>>>(x.data_ptr<float>(), between.data_ptr<float>(), 1.0f, n);
  kernel<<<(n + 255) / 256, 256, 0, stream>>>(between.data_ptr<float>(), y.data_ptr<float>(), scale, n);
  window.accessPolicyWindow.num_bytes = 0;
  cudaStreamSetAttribute(stream, cudaStreamAttributeAccessPolicyWindow, &window);
  cudaCtxResetPersistingL2Cache();
  return y;
}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return extension.scaled_relu(x, self.scale)
