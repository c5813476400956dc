"""A thin matrix product, divided by a constant, through the Mish activation."""

import torch
import torch.nn as nn
import torch.nn.functional as F

ROWS = 1024
IN_FEATURES = 64
OUT_FEATURES = 1024


class Model(nn.Module):
    """x @ weight, divided by `divisor`, then mish(y) = y * tanh(softplus(y))."""

    def __init__(self, in_features: int, out_features: int, divisor: float):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(in_features, out_features))
        self.divisor = divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, in_features). Returns (rows, out_features)."""
        return F.mish(torch.matmul(x, self.weight) / self.divisor)


def get_inputs():
    return [torch.randn(ROWS, IN_FEATURES)]


def get_init_inputs():
    return [IN_FEATURES, OUT_FEATURES, 4.0]
