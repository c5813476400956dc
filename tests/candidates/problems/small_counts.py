import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    """How often each of 64 labels occurs, as int64, by one-hot rows."""

    def forward(self, labels):
        return F.one_hot(labels, 64).sum(dim=0)


def get_inputs():
    return [torch.randint(0, 64, (6000,))]


def get_init_inputs():
    return []
