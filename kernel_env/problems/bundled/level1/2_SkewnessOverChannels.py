"""Skewness over the middle dimension of a three-dimensional tensor."""

import torch
import torch.nn as nn

BATCH = 16
CHANNELS = 256
LENGTH = 1000


class Model(nn.Module):
    """Third central moment over the channels, in units of the standard deviation cubed, for every position."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (BATCH, CHANNELS, LENGTH) -> (BATCH, LENGTH)."""
        centred = x - x.mean(dim=1, keepdim=True)
        second = centred.pow(2).mean(dim=1)
        third = centred.pow(3).mean(dim=1)
        return third / second.pow(1.5)


def get_inputs():
    return [torch.randn(BATCH, CHANNELS, LENGTH)]


def get_init_inputs():
    return []
