import torch
import torch.nn as nn


class Model(nn.Module):
    """A dilated one-dimensional convolution."""

    def __init__(self, cin, cout, dilation):
        super().__init__()
        self.conv = nn.Conv1d(cin, cout, kernel_size=3, dilation=dilation, padding=dilation)

    def forward(self, x):
        return self.conv(x)


def get_inputs():
    return [torch.randn(4, 16, 1000)]


def get_init_inputs():
    return [16, 24, 4]
