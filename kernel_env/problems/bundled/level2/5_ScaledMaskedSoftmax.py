"""Attention probabilities from raw scores: scale, mask, softmax, and a weight for each head."""

import torch
import torch.nn as nn

HEADS = 16
QUERIES = 256
KEYS = 512


class Model(nn.Module):
    """Softmax over the keys that the mask keeps; every head's result is then scaled by its own weight."""

    def __init__(self, heads: int, scale: float):
        super().__init__()
        self.head_weight = nn.Parameter(1.0 + torch.rand(heads, 1, 1))
        self.scale = scale

    def forward(self, scores: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """scores: (heads, queries, keys); masked: (queries, keys), True hides a key. Returns (heads, queries, keys)."""
        s = (scores * self.scale).masked_fill(masked, float("-inf"))
        return torch.softmax(s, dim=-1) * self.head_weight


def get_inputs():
    masked = torch.rand(QUERIES, KEYS) < 0.3
    masked[:, 0] = False  # every query keeps at least one key
    return [8.0 * torch.randn(HEADS, QUERIES, KEYS), masked]


def get_init_inputs():
    return [HEADS, 0.5]
