"""A tiny transformer of diffusion, made from a configuration, with the same weights each time, and its inputs."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from peft import LoraConfig

# The package loads its classes late and a type checker takes them for placeholders.
library: Any = diffusers
INPUTS = {
    "hidden_states": torch.randn(1, 16, 4, generator=torch.Generator().manual_seed(1)),
    "encoder_hidden_states": torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(2)),
    "pooled_projections": torch.randn(1, 32, generator=torch.Generator().manual_seed(3)),
    "timestep": torch.tensor([0.5]),
    "img_ids": torch.zeros(16, 3),
    "txt_ids": torch.zeros(8, 3),
}


def flux(adapter: bool = False) -> Any:
    """Return a transformer of diffusion, perhaps with a LoRA adapter that matters."""
    torch.manual_seed(0)
    model = library.FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    if adapter:
        model.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False))
    return model


def run(model: torch.nn.Module) -> torch.Tensor:
    """Return what a model makes of the inputs."""
    with torch.no_grad():
        return model(**INPUTS).sample
