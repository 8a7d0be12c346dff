"""The smallest model of each module that ``timm`` registers."""

from __future__ import annotations

import contextlib
import inspect
import re
from functools import cache
from typing import Any

import timm
import torch

# Words for sizes in names, small ones first; a name with none of them comes after all that have one.
SIZES = ("test", "zepto", "femto", "atto", "pico", "nano", "xx", "xtiny", "micro", "tiny", "_xs", "mini", "small", "_s")
SIDE, SIDES = 64, (32, 64, 96, 128, 224)
# Settings of a model's class, by their type, and what they become, where the class has them.
SHALLOW: dict[str, Any] = {"depth": 2, "depths": 1, "layers": 1, "num_blocks": 1}


def names() -> list[str]:
    """Return the modules."""
    return timm.list_modules()


def create(module: str) -> torch.nn.Module:
    """Build the model of a module whose name promises the smallest, with few layers where its class allows that."""
    name = min(timm.list_models(module=module), key=size_key)
    for settings in settings_of(name):
        with contextlib.suppress(Exception):
            return timm.create_model(name, **settings)
    return timm.create_model(name)


def size_key(name: str) -> tuple[int, int, str]:
    """Return what orders names by the sizes that they promise."""
    word = next((place for place, size in enumerate(SIZES) if size in name), len(SIZES))
    return word, min((int(number) for number in re.findall(r"\d+", name)), default=10_000), name


@cache
def settings_of(name: str) -> list[dict[str, Any]]:
    """Return settings that make a model smaller, bold ones first."""
    with torch.device("meta"):
        parameters = inspect.signature(type(timm.create_model(name)).__init__).parameters
    image = {"img_size": SIDE} if "img_size" in parameters else {}
    shallow = {n: shallow_value(parameters[n].default, value) for n, value in SHALLOW.items() if n in parameters}
    return [image | shallow, image, shallow]


def shallow_value(default: Any, value: int) -> Any:
    """Return a number of layers in the form that a default has."""
    return (value,) * len(default) if isinstance(default, (list, tuple)) else value


def inputs_of(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Return images of several sizes."""
    name = next(iter(inspect.signature(model.forward).parameters))
    return [{name: torch.randn(2, 3, side, side)} for side in SIDES]
