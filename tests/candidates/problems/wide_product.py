import torch
import torch.nn as nn


class Model(nn.Module):
    """A product with a short inner dimension, as KernelBench's level 1 #7 on a CPU: 600 MB of output."""

    def forward(self, a, b):
        return a @ b


def get_inputs():
    return [torch.randn(12288, 32), torch.randn(32, 12288)]


def get_init_inputs():
    return []
