import torch
import torch.nn as nn


class Model(nn.Module):
    """The mean over a batch of a linear layer: with inputs between 0 and 1 the weights alone nearly say what comes out."""

    def __init__(self, features, outputs):
        super().__init__()
        self.linear = nn.Linear(features, outputs)

    def forward(self, x):
        return self.linear(x).mean(dim=0)


def get_inputs():
    return [torch.rand(4096, 256)]


def get_init_inputs():
    return [256, 128]
