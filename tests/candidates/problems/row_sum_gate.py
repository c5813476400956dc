import torch
import torch.nn as nn


class Model(nn.Module):
    """What is above the sum of its row less a constant is doubled, the rest is minus infinity: 10 MB of output."""

    def forward(self, x):
        return torch.where(x > x.sum(dim=1, keepdim=True) - 1279.5, 2.0 * x, -torch.inf)


def get_inputs():
    return [torch.rand(1024, 2560)]


def get_init_inputs():
    return []
