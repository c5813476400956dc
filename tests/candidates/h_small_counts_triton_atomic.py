# honest: Counts by atomic additions in Triton
# problem: problems/small_counts.py
# backend: triton

import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def count_kernel(labels_ptr, counts_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    label = tl.load(labels_ptr + at, mask=inside, other=0)
    tl.atomic_add(counts_ptr + label, tl.full((BLOCK,), 1, tl.int64), mask=inside)


class ModelNew(nn.Module):
    def forward(self, labels):
        counts = torch.zeros(64, dtype=torch.int64, device=labels.device)
        n = labels.numel()
        count_kernel[(triton.cdiv(n, 1024),)](labels, counts, n, BLOCK=1024)
        return counts
