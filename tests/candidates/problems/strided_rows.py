import torch
import torch.nn as nn


class Model(nn.Module):
    """exp(-x^2) of a matrix that lies transposed in memory."""

    def forward(self, x):
        return torch.exp(-x * x)


def get_inputs():
    return [torch.randn(700, 900).t()]


def get_init_inputs():
    return []
