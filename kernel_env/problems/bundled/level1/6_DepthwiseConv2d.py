"""Depthwise 3x3 convolution: every channel has a filter of its own, and the border of the image is repeated."""

import torch
import torch.nn as nn

BATCH = 16
CHANNELS = 64
HEIGHT = 60
WIDTH = 60


class Model(nn.Module):
    """3x3 filter a channel, stride 1, padding 1 by repeating the border, with a bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1, padding_mode="replicate", groups=channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (BATCH, CHANNELS, HEIGHT, WIDTH) -> the same shape."""
        return self.conv(x)


def get_inputs():
    return [torch.randn(BATCH, CHANNELS, HEIGHT, WIDTH)]


def get_init_inputs():
    return [CHANNELS]
