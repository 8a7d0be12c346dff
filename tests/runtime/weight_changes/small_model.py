"""The model whose weights are changed, and what it gives when every weight is cast now."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

WIDTH = 8

Model = torch.nn.Sequential
Change = Callable[[Model], object]
# Called before or after the first call of the model, it returns the change.
Way = Callable[[Model], Callable[[], object]]


def small_model(device: str = "cpu") -> Model:
    """Return two linear layers of one shape."""
    layers = torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, WIDTH)
    return torch.nn.Sequential(*layers).to(device)


def forward(model: Model, x: torch.Tensor) -> torch.Tensor:
    """Return the model's output; one function for all models, so that it is compiled once."""
    return model(x)


def weight(model: Model) -> torch.nn.Parameter:
    """Return the weight that most ways change."""
    return model.get_parameter("0.weight")


def weight_now(layer: torch.nn.Module) -> torch.Tensor:
    """Return the weight that a layer is about to use, in float32."""
    if hasattr(layer, "weight_orig"):  # pruned: the hook multiplies at the next call
        return layer.weight_orig * layer.weight_mask  # type: ignore[operator]
    return layer.weight  # type: ignore[return-value]


def expected(model: Model, x: torch.Tensor) -> torch.Tensor:
    """Return what the model gives with every weight cast now, in float32; it can be differentiated.

    A tied weight is cast once, so that its gradients are added up in bfloat16.
    """
    with torch.autocast(x.device.type, enabled=False):
        first, second = weight_now(model[0]), weight_now(model[2])
        lower = first.bfloat16()
        hidden = F.linear(x.bfloat16(), lower, bias_of(model[0])).relu()
        return F.linear(hidden, lower if second is first else second.bfloat16(), bias_of(model[2])).float()


def bias_of(layer: torch.nn.Module) -> torch.Tensor:
    """Return the bias of a layer, cast now."""
    assert isinstance(layer.bias, torch.Tensor)
    return layer.bias.bfloat16()


def at_once(change: Change) -> Way:
    """Return the way that prepares nothing."""
    return lambda model: lambda: change(model)


def without_grad(way: Way) -> Way:
    """Return a way that prepares and changes under ``no_grad``."""

    def prepare(model: Model) -> Callable[[], object]:
        with torch.no_grad():
            return torch.no_grad()(way(model))

    return prepare
