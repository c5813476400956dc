import torch
import torch.nn as nn


class Model(nn.Module):
    """A plain ReLU on 64 million numbers that are never negative, as KernelBench's level 1 draws them: outputs of 256 MB."""

    def forward(self, x):
        return torch.relu(x)


def get_inputs():
    return [torch.rand(8192, 8192)]


def get_init_inputs():
    return []
