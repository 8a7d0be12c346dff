"""Every model type that ``transformers`` registers, made tiny."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING, MODEL_MAPPING_NAMES

from tests.architectures.shrink import SIDE, shrink

BATCH, LENGTH, SAMPLES, FRAMES = 2, 8, 1600, 64
# Random tokens stay below the ids that small configurations give to special ones.
TOKENS = (3, 30)

transformers.logging.set_verbosity(logging.CRITICAL)


def names() -> list[str]:
    """Return the model types."""
    return list(MODEL_MAPPING_NAMES)


def create(name: str) -> torch.nn.Module:
    """Build the plain model of a type from its default configuration, shrunk."""
    configuration = CONFIG_MAPPING[name]
    config = configuration.from_dict(shrink(configuration().to_dict()))
    model_class: Any = MODEL_MAPPING[configuration]
    return (model_class[0] if isinstance(model_class, (list, tuple)) else model_class)(config)


def inputs_of(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Return sets of inputs by the names in the signature of a model's forward, those of plain text first."""
    parameters = inspect.signature(model.forward).parameters
    main: Any = model.main_input_name
    required = {n for n, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}
    required |= {main} if isinstance(main, str) else set(main)
    usual = required | ({"attention_mask"} if main == "input_ids" else set()) | {"decoder_input_ids", "bbox"}
    choices = []
    for values in values_of(model.config):
        for wanted in (usual, required, set(values)):
            choices.append({n: v for n, v in values.items() if n in wanted and n in parameters})
    return choices


def values_of(config: Any) -> list[dict[str, torch.Tensor]]:
    """Return tables of values by name; each but the first reads some names in another of the libraries' senses."""
    channels = setting(config, "num_channels", "in_channels", "in_chans", default=3)
    side = setting(config, "image_size", "img_size", default=SIDE)
    features = setting(config, "num_mel_bins", "feature_size", "input_feat_per_channel", default=16)
    patch = setting(config, "temporal_patch_size", default=1) * setting(config, "patch_size", default=8) ** 2
    video = torch.randn(BATCH, setting(config, "num_frames", "frames_per_clip", default=4), channels, side, side)
    context = (BATCH, setting(config, "context_length", default=64), setting(config, "num_input_channels", default=1))
    mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
    mask[0, -2:] = 0
    values = {
        "input_ids": torch.randint(*TOKENS, (BATCH, LENGTH)),
        "attention_mask": mask,
        "decoder_input_ids": torch.randint(*TOKENS, (BATCH, LENGTH)),
        "bbox": torch.zeros(BATCH, LENGTH, 4, dtype=torch.long),
        "pixel_values": torch.randn(BATCH, channels, side, side),
        "pixel_values_videos": video,
        "input_values": torch.randn(BATCH, SAMPLES),
        "input_features": torch.randn(BATCH, features, FRAMES),
        "past_values": torch.randn(context),
    }
    patches = torch.randn(16, channels * patch)
    return [
        values,
        values | {"pixel_values": video, "input_values": torch.randn(BATCH, 1, SAMPLES)},
        values | {"input_features": torch.randn(BATCH, FRAMES, features)},
        values | {"input_features": torch.randn(BATCH, features, 2 * FRAMES)},
        values | {"pixel_values": patches, "hidden_states": patches, "grid_thw": torch.tensor([[1, 4, 4]])},
    ]


def setting(config: Any, *names: str, default: int) -> int:
    """Return the first setting that has one of these names, of a configuration, else of those nested in it."""
    nested = [value for value in vars(config).values() if isinstance(value, transformers.PreTrainedConfig)]
    for settings in map(vars, [config, *nested]):
        if (found := first_number(settings, names)) is not None:
            return found
    return default


def first_number(settings: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """Return the first of some settings that is a number or begins with one."""
    values = [settings.get(name) for name in names]
    numbers = [value[0] if isinstance(value, (list, tuple)) and value else value for value in values]
    return next((number for number in numbers if isinstance(number, int)), None)
