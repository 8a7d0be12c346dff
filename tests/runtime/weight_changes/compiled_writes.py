"""Writes in compiled code, of our backend and of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.runtime.weight_changes.in_place import double
from tests.runtime.weight_changes.small_model import Model, Way, weight

Write = Callable[..., object]
OURS: dict[str, Any] = {"backend": "xpu_amp", "options": {"weights": "cached", "inner_backend": "aot_eager"}}
OTHERS: dict[str, Any] = {"backend": "aot_eager"}


def under_no_grad(weight: torch.Tensor) -> None:
    """Double a weight in a region without gradients, which the code opens."""
    with torch.no_grad():
        weight.mul_(2)


def under_no_grad_with_output(weight: torch.Tensor) -> torch.Tensor:
    """Double a weight and return what is computed with it."""
    with torch.no_grad():
        weight.mul_(2)
    return weight @ weight.t()


def through_data(weight: torch.Tensor) -> None:
    """Double a weight through ``.data``."""
    weight.data.mul_(2)


def through_data_with_output(weight: torch.Tensor) -> torch.Tensor:
    """Use a weight, double it through ``.data`` and use it again."""
    before = weight @ weight.t()
    weight.data.mul_(2)
    return before + weight @ weight.t()


def through_view_of_data(weight: torch.Tensor) -> torch.Tensor:
    """Write to a view of ``.data``."""
    view = weight.data.t()[1:]
    view.add_(1)
    return view.sum()


def through_detached(weight: torch.Tensor) -> None:
    """Double a detached alias."""
    weight.detach().mul_(2)


def assigned(weight: torch.Tensor) -> None:
    """Copy new values in by ``copy_``."""
    with torch.no_grad():
        weight.copy_(weight * 2)


def by_custom_op(weight: torch.Tensor) -> None:
    """Write by a custom op."""
    double(weight.data)


def average(weight: torch.Tensor) -> None:
    """Move towards something else, as averages of weights do."""
    weight.data.mul_(0.5).add_(torch.ones_like(weight), alpha=0.5)


WRITES: dict[str, Write] = {
    "no_grad": under_no_grad,
    "no_grad, with output": under_no_grad_with_output,
    ".data": through_data,
    ".data, with output": through_data_with_output,
    "view of .data": through_view_of_data,
    "detached": through_detached,
    "copy_": assigned,
    "custom op": by_custom_op,
    "average": average,
}


def compiled(write: Write, mode: Callable[[], Any], **compiler: Any) -> Way:
    """Return a write in compiled code, called in a grad mode."""

    def prepare(model: Model) -> Callable[[], object]:
        program = torch.compile(write, **compiler)

        def change() -> object:
            with mode():
                return program(weight(model))

        return change

    return prepare


def compiled_over_alias(**compiler: Any) -> Way:
    """Return a write to an alias that compiled code is given."""

    def prepare(model: Model) -> Callable[[], object]:
        alias = weight(model).data
        program = torch.compile(torch.Tensor.mul_, **compiler)
        return lambda: program(alias, 2)

    return prepare


def ways(**compiler: Any) -> dict[str, Way]:
    """Return all writes, compiled so, with and without gradients."""
    modes = {"with gradients": torch.enable_grad, "no_grad": torch.no_grad}
    table = {
        f"{name}, {mode}": compiled(write, enter, **compiler)
        for name, write in WRITES.items()
        for mode, enter in modes.items()
    }
    return {**table, "held alias": compiled_over_alias(**compiler)}


WAYS: dict[str, Way] = {
    **{f"compiled by us: {name}": way for name, way in ways(**OURS).items()},
    **{f"compiled by others: {name}": way for name, way in ways(**OTHERS).items()},
}
# These take seconds each, of a C++ compiler.
SLOW_WAYS: dict[str, Way] = {
    **{f"Inductor, ours: {n}": w for n, w in ways(backend="xpu_amp", options={"weights": "cached"}).items()},
    **{f"Inductor: {n}": w for n, w in ways(backend="inductor").items()},
}
