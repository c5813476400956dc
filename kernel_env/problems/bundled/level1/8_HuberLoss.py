"""Huber loss of every sample: quadratic for small errors, linear for large ones."""

import torch
import torch.nn as nn

SAMPLES = 2048
FEATURES = 1200
DELTA = 1


class Model(nn.Module):
    """y[i] = mean over the features of huber(prediction - target, delta)."""

    def __init__(self, delta: float):
        super().__init__()
        self.delta = delta

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """prediction, target: (SAMPLES, FEATURES) -> (SAMPLES,)."""
        error = torch.abs(prediction - target)
        quadratic = torch.clamp(error, max=self.delta)
        linear = error - quadratic
        return (0.5 * quadratic * quadratic + self.delta * linear).mean(dim=1)


def get_inputs():
    return [torch.randn(SAMPLES, FEATURES), torch.randn(SAMPLES, FEATURES)]


def get_init_inputs():
    return [float(DELTA)]
