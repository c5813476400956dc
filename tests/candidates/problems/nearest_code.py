import torch
import torch.nn as nn


class Model(nn.Module):
    """Which code of a table is nearest to each vector."""

    def __init__(self, codes, width):
        super().__init__()
        self.codes = nn.Parameter(torch.randn(codes, width))

    def forward(self, x):
        return torch.cdist(x, self.codes).argmin(dim=1)


def get_inputs():
    return [torch.randn(2000, 16)]


def get_init_inputs():
    return [128, 16]
