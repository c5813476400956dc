import torch
import torch.nn as nn


class Model(nn.Module):
    """A plain ReLU on numbers that are never negative, as KernelBench's level 1 draws them."""

    def forward(self, x):
        return torch.relu(x)


def get_inputs():
    return [torch.rand(1024, 1024)]


def get_init_inputs():
    return []
