"""A gated linear recurrence, one step of the sequence at a time."""

import torch
import torch.nn as nn

BATCH = 16
STEPS = 128
CHANNELS = 512


class Model(nn.Module):
    """h[t] = f * h[t-1] + (1 - f) * x[t] with f = sigmoid(forget[t] + bias); returns tanh(h[t]) of every step."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(channels))

    def forward(self, x: torch.Tensor, forget: torch.Tensor) -> torch.Tensor:
        """x, forget: (batch, steps, channels). Returns (batch, steps, channels)."""
        h = torch.zeros_like(x[:, 0])
        outputs = []
        for t in range(x.shape[1]):
            f = torch.sigmoid(forget[:, t] + self.bias)
            h = f * h + (1.0 - f) * x[:, t]
            outputs.append(torch.tanh(h))
        return torch.stack(outputs, dim=1)


def get_inputs():
    return [2.0 * torch.randn(BATCH, STEPS, CHANNELS), torch.randn(BATCH, STEPS, CHANNELS)]


def get_init_inputs():
    return [CHANNELS]
