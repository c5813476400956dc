import torch
import torch.nn as nn


class Model(nn.Module):
    """Queries, keys and values of the same tokens, from three linear layers."""

    def __init__(self, width):
        super().__init__()
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)

    def forward(self, x):
        return self.q(x), self.k(x), self.v(x)


def get_inputs():
    return [torch.randn(512, 64)]


def get_init_inputs():
    return [64]
