"""Every model class of ``diffusers``, made tiny."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers.models
import torch

from tests.architectures.shrink import HEAD_WIDTH, WIDTH, shrink

BATCH, LENGTH, FRAMES, SIDE = 2, 8, 5, 8


def names() -> list[str]:
    """Return the names of all classes of models that the library exports; its pipelines are not imported."""
    exported = {name: getattr(diffusers.models, name) for name in dir(diffusers.models)}
    return [name for name, value in exported.items() if inspect.isclass(value) and is_model(value)]


def is_model(value: type) -> bool:
    """Say whether a class is a model, not the base of all or a stand-in for what is not installed."""
    base = diffusers.ModelMixin
    return issubclass(value, base) and value is not base and value.__module__.startswith("diffusers.models.")


def create(name: str) -> torch.nn.Module:
    """Build a model from the defaults of its class, shrunk."""
    model_class = getattr(diffusers.models, name)
    parameters = inspect.signature(model_class.__init__).parameters
    settings = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    return model_class(**shrink(settings) | rotary_axes(settings))


def rotary_axes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the width of a head is divided among rotary axes, where a model has these."""
    shares = (HEAD_WIDTH // 4, HEAD_WIDTH // 8 * 3, HEAD_WIDTH // 8 * 3)
    return {n: type(v)(shares) for n, v in settings.items() if n.startswith("axes_dim") and len(v) == len(shares)}


def inputs_of(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Return sets of inputs by the names in the signature of a model's forward, for each shape of a latent."""
    parameters = inspect.signature(model.forward).parameters
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    required.add(next(iter(parameters)))
    usual = required | {"timestep", "encoder_hidden_states"}
    config: Any = model.config
    choices = []
    for shape in latent_shapes(setting(config, "in_channels", "sample_channels", "in_dim", default=4)):
        values = values_of(config, torch.randn(shape))
        for wanted in (required, usual, usual | ROTARY, usual | ROTARY | CONDITIONS):
            choices.append({n: v for n, v in values.items() if n in wanted and n in parameters})
    return choices


ROTARY = {"img_ids", "txt_ids", "pooled_projections", "guidance"}
CONDITIONS = {"class_labels", "added_time_ids", "num_frames", "height", "width", "encoder_attention_mask", "fps"}


def latent_shapes(channels: int) -> list[tuple[int, ...]]:
    """Return shapes of images, videos, sequences and sounds."""
    images = [(BATCH, channels, side, side) for side in (SIDE, 4 * SIDE)]
    videos = [(BATCH, channels, FRAMES, SIDE, SIDE), (BATCH, FRAMES, channels, SIDE, SIDE)]
    large = [(BATCH, channels, FRAMES, 4 * SIDE, 4 * SIDE)]
    return [*images, *videos, (BATCH, SIDE * SIDE, channels), (BATCH, channels, 64), (BATCH, channels), *large]


def values_of(config: Mapping[str, Any], latent: torch.Tensor) -> dict[str, Any]:
    """Return values by name."""
    steps, ids = torch.tensor([1, 2]), torch.zeros(SIDE * SIDE, 3)
    text = setting(config, *TEXT_WIDTHS, default=WIDTH)
    return {
        **dict.fromkeys(("sample", "hidden_states", "x", "latents", "z"), latent),
        **dict.fromkeys(("timestep", "timesteps", "class_labels", "fps"), steps),
        **dict.fromkeys(("t", "guidance", "timestep_r", "r_timestep", "timestep_ratio"), steps / 4),
        "encoder_hidden_states": torch.randn(BATCH, LENGTH, text),
        "encoder_attention_mask": torch.ones(BATCH, LENGTH),
        "pooled_projections": torch.randn(BATCH, setting(config, "pooled_projection_dim", default=WIDTH)),
        "controlnet_cond": torch.randn(BATCH, 3, 8 * SIDE, 8 * SIDE),
        "img_ids": ids,
        "txt_ids": ids[:LENGTH],
        "added_time_ids": torch.ones(BATCH, 3),
        "num_frames": FRAMES,
        "height": SIDE,
        "width": SIDE,
    }


TEXT_WIDTHS = ("cross_attention_dim", "joint_attention_dim", "caption_channels", "text_dim", "text_embed_dim")


def setting(config: Mapping[str, Any], *names: str, default: int) -> int:
    """Return the first setting of a configuration that has one of these names and is a number or begins with one."""
    values = [config.get(name) for name in names]
    numbers = [value[0] if isinstance(value, (list, tuple)) else value for value in values]
    return next((number for number in numbers if isinstance(number, int)), default)
