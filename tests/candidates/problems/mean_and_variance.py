import torch
import torch.nn as nn


class Model(nn.Module):
    """Mean and biased variance of every row, as a tuple."""

    def forward(self, x):
        return x.mean(dim=1), x.var(dim=1, unbiased=False)


def get_inputs():
    return [torch.randn(1500, 600)]


def get_init_inputs():
    return []
