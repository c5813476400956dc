"""Running mean along each row over the positions that a mask keeps."""

import torch
import torch.nn as nn

ROWS = 2048
LENGTH = 1024


class Model(nn.Module):
    """y[i, t] = sum of x[i, :t+1] * mask[i, :t+1] over their number; 0 before the first kept position."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x: (ROWS, LENGTH), mask: (ROWS, LENGTH) of zeros and ones -> (ROWS, LENGTH)."""
        total = torch.cumsum(x * mask, dim=1)
        count = torch.cumsum(mask, dim=1)
        return total / count.clamp(min=1.0)


def get_inputs():
    return [torch.randn(ROWS, LENGTH), (torch.rand(ROWS, LENGTH) > 0.3).float()]


def get_init_inputs():
    return []
