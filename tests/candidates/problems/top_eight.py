import torch
import torch.nn as nn


class Model(nn.Module):
    """The eight largest of every row, in order, and where they stand."""

    def forward(self, x):
        return torch.topk(x, 8, dim=1)


def get_inputs():
    return [torch.randn(1000, 500)]


def get_init_inputs():
    return []
