import torch
import torch.nn as nn


class Model(nn.Module):
    """Rows as int8 with a scale each."""

    def forward(self, x):
        scale = x.abs().amax(dim=1, keepdim=True) / 127.0
        return torch.round(x / scale).to(torch.int8), scale


def get_inputs():
    return [torch.randn(500, 400)]


def get_init_inputs():
    return []
