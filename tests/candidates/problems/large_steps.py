import torch
import torch.nn as nn


class Model(nn.Module):
    """x in steps of 1/1024: 8.4 MB, and one element in 2,000 is so near to the middle of a step that its last bits decide."""

    def forward(self, x):
        return torch.round(x * 1024.0)


def get_inputs():
    return [torch.randn(1450, 1450)]


def get_init_inputs():
    return []
