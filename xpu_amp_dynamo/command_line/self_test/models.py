"""Small models of PyTorch's own modules: what the self test compiles, compares and times."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from xpu_amp_dynamo.command_line.model_source import Source


class Block(nn.Module):
    """A layer of a transformer's encoder, norms first.

    Args:
        width: features of a token.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mixing_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mixing = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return tokens of shape [batch, length, width] for tokens of the same shape."""
        parts = self.queries_keys_values(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attention = F.scaled_dot_product_attention(query, key, value)
        x = x + self.attention_out(attention.transpose(1, 2).flatten(2))
        return x + self.mixing(self.mixing_norm(x))


def block(width: int = 64) -> Source:
    """Make one transformer layer and a batch for it."""
    torch.manual_seed(0)
    return Source("transformer block", Block(width, 4), (torch.randn(2, 16, width),), {})


def mlp(width: int = 512) -> Source:
    """Make a perceptron of three layers and a batch for it."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 16))
    return Source("mlp", layers.eval(), (torch.randn(64, width),), {})


def transformer(width: int = 128) -> Source:
    """Make an encoder of one layer and a batch for it."""
    torch.manual_seed(0)
    layers = nn.Sequential(Block(width, 4), nn.LayerNorm(width))
    return Source("transformer", layers.eval(), (torch.randn(4, 32, width),), {})


def convolutions(width: int = 32) -> Source:
    """Make a small convolutional net and a batch for it."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.GroupNorm(4, width),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 16),
    )
    return Source("convolutions", layers.eval(), (torch.randn(4, 3, 32, 32),), {})
