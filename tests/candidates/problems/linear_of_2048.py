import torch
import torch.nn as nn


class Model(nn.Module):
    """A matrix of 16 MB times a vector: a millisecond, all of it for reading weights."""

    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)

    def forward(self, x):
        return self.linear(x)


def get_inputs():
    return [torch.randn(1, 2048)]


def get_init_inputs():
    return [2048]
