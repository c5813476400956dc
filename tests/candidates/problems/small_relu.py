import torch
import torch.nn as nn


class Model(nn.Module):
    """relu(x) * scale: about a tenth of a millisecond."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return torch.relu(x) * self.scale


def get_inputs():
    return [torch.randn(192, 1024)]


def get_init_inputs():
    return [2.0]
