import torch
import torch.nn as nn


class Model(nn.Module):
    """Sums of int64 and of int32 numbers."""

    def forward(self, a, b):
        return a.sum(), (b * 3).cumsum(0, dtype=torch.int32)


def get_inputs():
    return [torch.randint(-(2**40), 2**40, (200, 500)), torch.randint(-9, 9, (100000,), dtype=torch.int32)]


def get_init_inputs():
    return []
