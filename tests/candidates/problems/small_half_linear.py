import torch
import torch.nn as nn


class Model(nn.Module):
    """A half-precision linear layer of a size for interpreters."""

    def __init__(self, features):
        super().__init__()
        self.layer = nn.Linear(features, features, dtype=torch.float16)

    def forward(self, x):
        return self.layer(x)


def get_inputs():
    return [torch.randn(64, 96).half()]


def get_init_inputs():
    return [96]
