import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    """A binomial blur with a reflected border."""

    def __init__(self):
        super().__init__()
        taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None])

    def forward(self, x):
        n, c, h, w = x.shape
        y = F.conv2d(F.pad(x.reshape(n * c, 1, h, w), (2, 2, 2, 2), mode="reflect"), self.kernel)
        return y.reshape(n, c, h, w)


def get_inputs():
    return [torch.rand(2, 3, 160, 160)]


def get_init_inputs():
    return []
