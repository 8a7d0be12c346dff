"""Small models that between them need every kind of kernel Inductor makes for XPUs."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.models import UNet


class Attention(nn.Module):
    """Attention of four heads to the sequence itself."""

    def __init__(self, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.project = nn.Linear(32, 96)
        self.leave = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.project(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.leave(mixed.transpose(1, 2).flatten(2))


class Classifier(nn.Module):
    """An embedding, a normalised hidden layer and the cross entropy of its prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 32)
        self.norm = nn.RMSNorm(32)
        self.predict = nn.Linear(32, 20)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.predict(self.norm(self.embed(tokens)))
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten()) + torch.softmax(logits, -1).square().mean()


class Dropout(nn.Module):
    """Dropout behind a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(self.linear(x), 0.5, training=self.training)


def image() -> torch.Tensor:
    """Return two small images."""
    return torch.randn(2, 3, 8, 8)


def sequence() -> torch.Tensor:
    """Return two sequences of six vectors."""
    return torch.randn(2, 6, 32)


ZOO: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 8)), sequence),
    "attention": (Attention, sequence),
    "causal_attention": (lambda: Attention(causal=True), sequence),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.SiLU()), image),
    "transposed_convolution": (lambda: nn.ConvTranspose2d(3, 4, 2, stride=2), image),
    "unet": (lambda: UNet(8), image),
    "layer_norm": (lambda: nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.SiLU()), sequence),
    "classifier": (Classifier, lambda: torch.randint(0, 20, (2, 6))),
    "softmax": (lambda: nn.Sequential(nn.Linear(32, 16), nn.LogSoftmax(-1)), sequence),
}


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a model of the zoo with random weights, and an input for it."""
    torch.manual_seed(0)
    make_model, make_input = ZOO[name]
    return make_model(), make_input()
