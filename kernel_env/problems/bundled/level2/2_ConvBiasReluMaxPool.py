"""The first stage of a small vision network: convolution, bias, ReLU and max-pooling."""

import torch
import torch.nn as nn
import torch.nn.functional as F

BATCH = 8
IN_CHANNELS = 3
OUT_CHANNELS = 16
HEIGHT = 128
WIDTH = 128


class Model(nn.Module):
    """3x3 convolution without padding, a learned bias, ReLU, then 2x2 max-pooling with stride 2."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, bias=False)
        self.bias = nn.Parameter(0.5 * torch.randn(out_channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (batch, in_channels, height, width). Returns (batch, out_channels, (height-2)//2, (width-2)//2)."""
        y = torch.relu(self.conv(x) + self.bias)
        return F.max_pool2d(y, kernel_size=2)


def get_inputs():
    return [torch.randn(BATCH, IN_CHANNELS, HEIGHT, WIDTH)]


def get_init_inputs():
    return [IN_CHANNELS, OUT_CHANNELS]
