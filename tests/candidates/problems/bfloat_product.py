import torch
import torch.nn as nn


class Model(nn.Module):
    """A product of two bfloat16 matrices."""

    def forward(self, a, b):
        return torch.matmul(a, b)


def get_inputs():
    return [torch.randn(96, 64).bfloat16(), torch.randn(64, 80).bfloat16()]


def get_init_inputs():
    return []
