"""GELU in its tanh form, written out element by element."""

import math

import torch
import torch.nn as nn

ROWS = 2048
COLS = 1536


class Model(nn.Module):
    """y = 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), each element on its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (ROWS, COLS) -> (ROWS, COLS)."""
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3))
        return 0.5 * x * (1.0 + torch.tanh(inner))


def get_inputs():
    return [torch.randn(ROWS, COLS)]


def get_init_inputs():
    return []
