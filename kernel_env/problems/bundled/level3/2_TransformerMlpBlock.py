"""The feed-forward half of a pre-norm transformer layer."""

import torch
import torch.nn as nn
import torch.nn.functional as F

TOKENS = 1024
HIDDEN = 256
EXPANSION = 1024


class Model(nn.Module):
    """Layer norm, expansion, GELU (tanh form), projection, and the residual around all of it."""

    def __init__(self, hidden: int, expansion: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.expand = nn.Linear(hidden, expansion)
        self.project = nn.Linear(expansion, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (tokens, hidden). Returns (tokens, hidden)."""
        return x + self.project(F.gelu(self.expand(self.norm(x)), approximate="tanh"))


def get_inputs():
    return [torch.randn(TOKENS, HIDDEN)]


def get_init_inputs():
    return [HIDDEN, EXPANSION]
