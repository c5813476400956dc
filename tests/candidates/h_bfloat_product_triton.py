# honest: tl.dot of bfloat16 tiles, added up in single precision, as every product on a GPU is written
# classes: 29
# problem: problems/bfloat_product.py
# backend: triton
# note: Triton's interpreter keeps bfloat16 as 16-bit integers, and would multiply, add and compare those: here it computes in single precision
#    and rounds, as a GPU does.

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def product_kernel(a_ptr, b_ptr, c_ptr, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    j = tl.program_id(1) * BN + tl.arange(0, BN)
    sums = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, k, BK):
        p = start + tl.arange(0, BK)
        a = tl.load(a_ptr + i[:, None] * k + p[None, :], mask=(i[:, None] < m) & (p[None, :] < k), other=0.0)
        b = tl.load(b_ptr + p[:, None] * n + j[None, :], mask=(p[:, None] < k) & (j[None, :] < n), other=0.0)
        sums += tl.dot(a, b)
    tl.store(c_ptr + i[:, None] * n + j[None, :], sums.to(tl.bfloat16), mask=(i[:, None] < m) & (j[None, :] < n))


class ModelNew(nn.Module):
    def forward(self, a, b):
        a, b = a.contiguous(), b.contiguous()
        m, k = a.shape
        n = b.shape[1]
        c = torch.empty((m, n), device=a.device, dtype=a.dtype)
        grid = (triton.cdiv(m, 32), triton.cdiv(n, 32))
        product_kernel[grid](a, b, c, m, n, k, BM=32, BN=32, BK=32, num_warps=4)
        return c
