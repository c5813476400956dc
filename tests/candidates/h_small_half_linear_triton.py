# honest: Half-precision operands and single-precision sums in Triton; the answer is a view of a padded buffer
# classes: 29
# problem: problems/small_half_linear.py
# backend: triton

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def linear_kernel(x_ptr, w_ptr, b_ptr, y_ptr, n, k, stride_y, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    j = tl.arange(0, BN)
    sums = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, k, BK):
        p = start + tl.arange(0, BK)
        x = tl.load(x_ptr + i[:, None] * k + p[None, :])
        w = tl.load(w_ptr + j[None, :] * k + p[:, None], mask=j[None, :] < n, other=0.0)
        sums = tl.dot(x, w, sums)
    sums += tl.load(b_ptr + j, mask=j < n, other=0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + i[:, None] * stride_y + j[None, :], sums.to(tl.float16))


class ModelNew(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.layer = nn.Linear(features, features, dtype=torch.float16)

    def forward(self, x):
        m, k = x.shape
        n = self.layer.out_features
        padded = torch.empty((m, 128), dtype=x.dtype)
        linear_kernel[(m // 16,)](x, self.layer.weight, self.layer.bias, padded, n, k, padded.stride(0), BM=16, BN=128, BK=32)
        return padded[:, :n]
