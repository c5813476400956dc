"""A narrow linear layer whose wide output is gated by its own sigmoid, scaled and clamped."""

import torch
import torch.nn as nn

ROWS = 2048
IN_FEATURES = 16
OUT_FEATURES = 1024


class Model(nn.Module):
    """Linear with bias, swish, a scale for each output feature, then a clamp to [-2, 2]."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.scale = nn.Parameter(1.0 + 0.1 * torch.randn(out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, in_features). Returns (rows, out_features)."""
        y = self.linear(x)
        y = y * torch.sigmoid(y)
        y = y * self.scale
        return torch.clamp(y, -2.0, 2.0)


def get_inputs():
    return [3.0 * torch.randn(ROWS, IN_FEATURES)]


def get_init_inputs():
    return [IN_FEATURES, OUT_FEATURES]
