"""Causal self-attention over given queries, keys and values, written out step by step."""

import math

import torch
import torch.nn as nn

BATCH = 2
HEADS = 4
LENGTH = 512
HEAD_SIZE = 32


class Model(nn.Module):
    """softmax(q k^T / sqrt(head_size)) v, in which a position sees itself and what came before."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q, k, v: (batch, heads, length, head_size). Returns the same shape."""
        length = q.shape[-2]
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
        future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
        return torch.matmul(torch.softmax(scores.masked_fill(future, float("-inf")), dim=-1), v)


def get_inputs():
    shape = (BATCH, HEADS, LENGTH, HEAD_SIZE)
    return [2.0 * torch.randn(shape), torch.randn(shape), torch.randn(shape)]


def get_init_inputs():
    return []
