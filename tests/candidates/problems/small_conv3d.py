import torch
import torch.nn as nn


class Model(nn.Module):
    """A three-dimensional convolution over a small volume, then hardswish."""

    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv3d(cin, cout, 3, bias=False)

    def forward(self, x):
        return nn.functional.hardswish(self.conv(x))


def get_inputs():
    return [torch.randn(2, 4, 12, 16, 16)]


def get_init_inputs():
    return [4, 8]
