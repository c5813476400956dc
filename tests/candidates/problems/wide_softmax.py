import torch
import torch.nn as nn


class Model(nn.Module):
    """Softmax over 20,000 columns: outputs of about 5e-5."""

    def forward(self, x):
        return torch.softmax(x, dim=-1)


def get_inputs():
    return [torch.rand(64, 20000)]


def get_init_inputs():
    return []
