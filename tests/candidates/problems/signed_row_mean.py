import torch
import torch.nn as nn


class Model(nn.Module):
    """The mean of the positive part of every row, of numbers between -1 and 1."""

    def forward(self, x):
        return torch.relu(x).mean(dim=1)


def get_inputs():
    return [torch.rand(4096, 2048) * 2 - 1]


def get_init_inputs():
    return []
