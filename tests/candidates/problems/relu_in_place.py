import torch
import torch.nn as nn


class Model(nn.Module):
    """Changes its input in place and returns it."""

    def forward(self, x):
        x.clamp_(min=0.0)
        return x.mul_(1.5)


def get_inputs():
    return [torch.randn(600, 700)]


def get_init_inputs():
    return []
