import torch
import torch.nn as nn


class Model(nn.Module):
    """A transposed convolution with stride 2."""

    def __init__(self, cin, cout):
        super().__init__()
        self.up = nn.ConvTranspose2d(cin, cout, kernel_size=3, stride=2, padding=1, output_padding=1)

    def forward(self, x):
        return self.up(x)


def get_inputs():
    return [torch.randn(4, 12, 24, 24)]


def get_init_inputs():
    return [12, 8]
