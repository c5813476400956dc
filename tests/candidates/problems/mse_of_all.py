import torch
import torch.nn as nn


class Model(nn.Module):
    """Mean squared error over everything: a tensor without dimensions."""

    def forward(self, prediction, target):
        return torch.mean((prediction - target) ** 2)


def get_inputs():
    return [torch.randn(512, 512), torch.randn(512, 512)]


def get_init_inputs():
    return []
