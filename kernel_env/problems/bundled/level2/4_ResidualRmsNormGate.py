"""The element-wise half of a gated transformer layer: residual, RMS normalisation, gate."""

import torch
import torch.nn as nn

ROWS = 2048
HIDDEN = 1024


class Model(nn.Module):
    """RMS-normalise the sum of x and its residual, then multiply by the swish of a gate."""

    def __init__(self, hidden: int):
        super().__init__()
        self.weight = nn.Parameter(1.0 + 0.1 * torch.randn(hidden))
        self.eps = 1e-5

    def forward(self, x: torch.Tensor, residual: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """x, residual, gate: (rows, hidden). Returns (rows, hidden)."""
        h = x + residual
        h = h * torch.rsqrt(h.pow(2).mean(dim=-1, keepdim=True) + self.eps)
        return h * self.weight * (gate * torch.sigmoid(gate))


def get_inputs():
    return [torch.randn(ROWS, HIDDEN), torch.randn(ROWS, HIDDEN), torch.randn(ROWS, HIDDEN)]


def get_init_inputs():
    return [HIDDEN]
