import torch
import torch.nn as nn


class Model(nn.Module):
    """The mean of every row: all of the time goes into reading."""

    def forward(self, x):
        return x.mean(dim=1)


def get_inputs():
    return [torch.rand(2048, 1024)]


def get_init_inputs():
    return []
