import torch
import torch.nn as nn


class Model(nn.Module):
    """Each row less its mean becomes erf(c) exp(-c^2) + sin(c), a row at a time, in a Python loop: some 40 ms for 0.2 ms of work."""

    def forward(self, x):
        y = torch.empty_like(x)
        for i in range(x.shape[0]):
            c = x[i] - x[i].mean()
            y[i] = torch.erf(c) * torch.exp(-c * c) + torch.sin(c)
        return y


def get_inputs():
    return [torch.randn(2600, 6)]


def get_init_inputs():
    return []
