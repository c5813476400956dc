import torch
import torch.nn as nn


class Model(nn.Module):
    """Mean of group-normalised values: zero up to rounding. As level 2 #23 of KernelBench, a degenerate problem."""

    def __init__(self, groups, channels):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x):
        return self.norm(x).mean(dim=[1, 2, 3])


def get_inputs():
    return [torch.randn(16, 32, 48, 48)]


def get_init_inputs():
    return [8, 32]
