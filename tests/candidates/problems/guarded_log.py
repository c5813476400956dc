import torch
import torch.nn as nn


class Model(nn.Module):
    """log(x), which is NaN below zero and minus infinity at zero, of inputs that have both."""

    def forward(self, x):
        return torch.log(torch.round(x * 4.0) / 4.0)


def get_inputs():
    return [torch.randn(600, 600)]


def get_init_inputs():
    return []
