import torch
import torch.nn as nn


class Model(nn.Module):
    """A product for each member of the batch, the second operand transposed."""

    def forward(self, a, b):
        return torch.bmm(a, b.transpose(1, 2))


def get_inputs():
    return [torch.randn(24, 48, 40), torch.randn(24, 56, 40)]


def get_init_inputs():
    return []
