import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    """Cosine similarity of two vectors in each row; int64 lengths say how much of a row counts."""

    def forward(self, a, b, lengths):
        keep = torch.arange(a.shape[1])[None] < lengths[:, None]
        return F.cosine_similarity(a * keep, b * keep, dim=1)


def get_inputs():
    return [torch.randn(1000, 300), torch.randn(1000, 300), torch.randint(50, 301, (1000,))]


def get_init_inputs():
    return []
