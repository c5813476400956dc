# honest: The sizes of its tiles are module-level constexprs, three in one line
# classes: 46
# problem: level1_problem5
# backend: triton
# note: Triton asks what a global is, and these are constexprs, however they are assigned.

import torch
import torch.nn as nn
import triton
import triton.language as tl

BM, BN, BK = tl.constexpr(32), tl.constexpr(64), tl.constexpr(16)


@triton.jit
def product_kernel(a_ptr, b_ptr, c_ptr, m, n, k):
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    j = tl.program_id(1) * BN + tl.arange(0, BN)
    sums = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, k, BK):
        p = start + tl.arange(0, BK)
        a = tl.load(a_ptr + i[:, None] * k + p[None, :], mask=(i[:, None] < m) & (p[None, :] < k), other=0.0)
        b = tl.load(b_ptr + p[:, None] * n + j[None, :], mask=(p[:, None] < k) & (j[None, :] < n), other=0.0)
        sums += tl.dot(a, b, input_precision="ieee")
    tl.store(c_ptr + i[:, None] * n + j[None, :], sums, mask=(i[:, None] < m) & (j[None, :] < n))


class ModelNew(nn.Module):
    def forward(self, a, b):
        m, k = a.shape
        n = b.shape[1]
        c = torch.empty((m, n), device=a.device, dtype=a.dtype)
        product_kernel[(triton.cdiv(m, BM.value), triton.cdiv(n, BN.value))](a.contiguous(), b.contiguous(), c, m, n, k)
        return c
