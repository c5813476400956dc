import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    """A linear layer, the largest of each row, less its mean over the one column that is left, GELU. As level 2 #80 of KernelBench, a
    degenerate problem: zero everywhere."""

    def __init__(self, features, outputs):
        super().__init__()
        self.linear = nn.Linear(features, outputs)

    def forward(self, x):
        y = torch.max(self.linear(x), dim=1, keepdim=True).values
        return F.gelu(y - y.mean(dim=1, keepdim=True))


def get_inputs():
    return [torch.randn(128, 256)]


def get_init_inputs():
    return [256, 512]
