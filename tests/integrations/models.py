"""Tiny models, made from configurations, with the same weights each time."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 64


class Mlp(torch.nn.Module):
    """Two layers and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = torch.nn.Linear(16, 32), torch.nn.LayerNorm(32), torch.nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return four numbers a row."""
        return self.last(self.norm(torch.nn.functional.gelu(self.first(x))))


def mlp() -> Mlp:
    """Return an MLP."""
    torch.manual_seed(0)
    return Mlp()


def llama(**settings: Any) -> LlamaForCausalLM:
    """Return a Llama of two layers."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **settings,
    )
    return LlamaForCausalLM(config)


def sentences(count: int) -> list[dict[str, torch.Tensor]]:
    """Return sentences of 16 tokens, labelled with themselves."""
    generator = torch.Generator().manual_seed(1)
    tokens = [torch.randint(3, VOCABULARY, (16,), generator=generator) for _ in range(count)]
    return [{"input_ids": sentence, "labels": sentence} for sentence in tokens]


def lowered_calls(reports: list[Any]) -> int:
    """Return how many calls run in the lower precision, in all graphs of which there are reports."""
    return sum(report.ops["lower_precision"] for report in reports)
