import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    """A linear layer whose weights are stored as int8 with a scale for each output."""

    def __init__(self, cin, cout):
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (cout, cin), dtype=torch.int8))
        self.register_buffer("scale", torch.rand(cout) * 0.01 + 0.001)

    def forward(self, x):
        return F.linear(x, self.weight.float() * self.scale[:, None])


def get_inputs():
    return [torch.randn(64, 512)]


def get_init_inputs():
    return [512, 512]
