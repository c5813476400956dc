import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    """Layer norm in bfloat16, with weights in bfloat16."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter((1.0 + 0.2 * torch.randn(width)).bfloat16())
        self.bias = nn.Parameter((0.2 * torch.randn(width)).bfloat16())

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias)


def get_inputs():
    return [torch.randn(1000, 512).bfloat16()]


def get_init_inputs():
    return [512]
