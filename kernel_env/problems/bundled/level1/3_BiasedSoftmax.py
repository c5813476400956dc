"""Row-wise softmax of biased scores with a temperature, written out in its stable form."""

import torch
import torch.nn as nn

ROWS = 4096
COLS = 600
TEMPERATURE_PERCENT = 150


class Model(nn.Module):
    """y = softmax((x + bias) / temperature) over the last dimension."""

    def __init__(self, cols: int, temperature: float):
        super().__init__()
        self.temperature = temperature
        self.bias = nn.Parameter(torch.rand(cols))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (ROWS, COLS) -> (ROWS, COLS); every row sums to one."""
        scores = (x + self.bias) / self.temperature
        shifted = scores - scores.amax(dim=-1, keepdim=True)
        weights = torch.exp(shifted)
        return weights / weights.sum(dim=-1, keepdim=True)


def get_inputs():
    return [torch.randn(ROWS, COLS)]


def get_init_inputs():
    return [COLS, TEMPERATURE_PERCENT / 100]
