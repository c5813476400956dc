import torch
import torch.nn as nn


class Model(nn.Module):
    """Where the largest of every four numbers stands. They have 11 bits: once in 500 times two are equally large."""

    def forward(self, x):
        return torch.argmax(x, dim=1)


def get_inputs():
    return [torch.rand(4000, 4, dtype=torch.float16)]


def get_init_inputs():
    return []
