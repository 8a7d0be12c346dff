"""The architectures of all libraries, in an order that has nothing to do with their names."""

from __future__ import annotations

import warnings
import zlib
from typing import Any, NamedTuple

import torch

from tests.architectures import diffusers_models, timm_models, torchvision_models, transformers_models
from tests.architectures.running import Unusable, summary

# More costs too much to compile in a sweep.
MOST_MODULES, MOST_PARAMETERS = 150, 30_000_000

LIBRARIES: dict[str, Any] = {
    "transformers": transformers_models,
    "diffusers": diffusers_models,
    "timm": timm_models,
    "torchvision": torchvision_models,
}


class Architecture(NamedTuple):
    """A model and the sets of inputs that may suit it, likelier ones first."""

    model: torch.nn.Module
    choices: list[dict[str, Any]]


def names_of(library: str) -> list[str]:
    """Return the names that a library registers, in an order that is the same in every run."""
    return sorted(LIBRARIES[library].names(), key=lambda name: zlib.crc32(name.encode()))


def build(library: str, name: str, most_modules: int = MOST_MODULES) -> Architecture:
    """Build a tiny model with random weights.

    Args:
        library: the library.
        name: one of the names that it registers.
        most_modules: of how many modules the model may consist.

    Raises:
        Unusable: the library cannot, from a configuration made tiny by rules, or the model is not tiny.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build_quietly(library, name, most_modules)
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"not built: {summary(error)}") from error


def build_quietly(library: str, name: str, most_modules: int) -> Architecture:
    """Build a model, after one without memory that tells its size."""
    with torch.device("meta"):
        check_size(LIBRARIES[library].create(name), most_modules)
    torch.manual_seed(0)
    model = LIBRARIES[library].create(name)
    return Architecture(model, LIBRARIES[library].inputs_of(model))


def check_size(model: torch.nn.Module, most_modules: int) -> None:
    """Raise Unusable for a model that is too large."""
    modules, parameters = len(list(model.modules())), sum(p.numel() for p in model.parameters())
    if modules > most_modules or parameters > MOST_PARAMETERS:
        raise Unusable(f"{modules} modules and {parameters} parameters are too many")
