import torch
import torch.nn as nn


class Model(nn.Module):
    """A product of complex signals, conjugated."""

    def forward(self, a, b):
        return (a * b.conj()).resolve_conj()


def get_inputs():
    return [torch.randn(300, 500, dtype=torch.complex64), torch.randn(300, 500, dtype=torch.complex64)]


def get_init_inputs():
    return []
