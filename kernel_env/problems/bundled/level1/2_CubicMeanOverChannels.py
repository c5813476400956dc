"""Cubic mean over the middle dimension of a three-dimensional tensor."""

import torch
import torch.nn as nn

BATCH = 16
CHANNELS = 256
LENGTH = 1000


class Model(nn.Module):
    """Reduces the channels of every position: y[b, l] = (mean over c of |x[b, c, l]|^3)^(1/3)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (BATCH, CHANNELS, LENGTH) -> (BATCH, LENGTH)."""
        return torch.pow(torch.pow(torch.abs(x), 3).mean(dim=1), 1.0 / 3.0)


def get_inputs():
    return [torch.randn(BATCH, CHANNELS, LENGTH)]


def get_init_inputs():
    return []
