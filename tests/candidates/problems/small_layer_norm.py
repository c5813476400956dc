import torch
import torch.nn as nn


class Model(nn.Module):
    """Layer norm without weights over a small matrix."""

    def forward(self, x):
        return nn.functional.layer_norm(x, (x.shape[-1],))


def get_inputs():
    return [torch.randn(2, 24, 200)]


def get_init_inputs():
    return []
