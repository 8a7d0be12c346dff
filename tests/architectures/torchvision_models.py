"""The smallest model of each module that torchvision registers."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch

from tests.architectures.torchvision_ops import import_torchvision

models = import_torchvision().models
SIDES = (32, 64, 128, 224)


def names() -> list[str]:
    """Return the modules in which models are registered."""
    return sorted({module_of(name) for name in models.list_models()})


def module_of(name: str) -> str:
    """Return the module in which a model is registered."""
    return models.get_model_builder(name).__module__.removeprefix("torchvision.models.")


def create(module: str) -> torch.nn.Module:
    """Build the smallest model of a module."""
    return create_model(smallest(module))


def create_model(name: str) -> torch.nn.Module:
    """Build a model without weights, which some take for their backbones by default."""
    parameters = inspect.signature(models.get_model_builder(name)).parameters
    settings: dict[str, Any] = {"weights_backbone": None} if "weights_backbone" in parameters else {}
    if any(name.startswith(kind) for kind in ("inception", "googlenet")):
        settings["init_weights"] = False
    return models.get_model(name, weights=None, **settings)


@cache
def smallest(module: str) -> str:
    """Return the model of a module that has the fewest parameters."""
    with torch.device("meta"):
        candidates = [name for name in models.list_models() if module_of(name) == module]
        return min(candidates, key=lambda name: sum(p.numel() for p in create_model(name).parameters()))


def inputs_of(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Return images, videos and pairs of images of several sizes."""
    parameters = list(inspect.signature(model.forward).parameters)
    choices = []
    for side in SIDES:
        image, video = torch.randn(2, 3, side, side), torch.randn(2, 3, 8, side, side)
        choices += [{parameters[0]: value} for value in (image, video)]
        choices.append(dict(zip(parameters, (image, image.flip(0)), strict=False)))
    return choices
