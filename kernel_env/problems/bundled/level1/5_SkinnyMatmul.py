"""Matrix product with a small inner dimension: the output is far larger than both operands."""

import torch
import torch.nn as nn

M = 3072
K = 16
N = 2048


class Model(nn.Module):
    """C = A B, where writing C dominates."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """a: (M, K), b: (K, N) -> (M, N)."""
        return torch.matmul(a, b)


def get_inputs():
    return [torch.randn(M, K), torch.randn(K, N)]


def get_init_inputs():
    return []
