"""Writes through ``.data``, which PyTorch does not version, and new storage."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.runtime.weight_changes.small_model import WIDTH, Change, Model, Way, at_once, weight


def held(alias_of: Callable[[torch.nn.Parameter], torch.Tensor]) -> Way:
    """Return the way that holds an alias of a weight and doubles it."""

    def prepare(model: Model) -> Callable[[], object]:
        alias = alias_of(weight(model))

        def change() -> None:
            with torch.no_grad():
                alias.mul_(2)

        return change

    return prepare


def add(model: Model) -> None:
    """Add to a weight as adapters are merged."""
    weight(model).data += torch.randn(WIDTH, WIDTH, device=weight(model).device)


def assign_item(model: Model) -> None:
    """Assign to a row."""
    weight(model).data[0] = torch.randn(WIDTH, device=weight(model).device)


def assign(model: Model) -> None:
    """Give a weight new storage."""
    weight(model).data = weight(model).detach() * 2


def exchange(model: Model) -> None:
    """Exchange the storages of two weights."""
    first, second = weight(model), model.get_parameter("2.weight")
    first.data, second.data = second.data, first.data


def new_values(model: Model) -> torch.Tensor:
    """Return other values for a weight."""
    return torch.randn(WIDTH, WIDTH, device=weight(model).device)


def assign_and_write(model: Model) -> Callable[[], object]:
    """Assign a tensor that is held, then write to it."""
    weight(model).data = values = new_values(model)
    return lambda: values.mul_(2)


def assign_view_and_write(model: Model) -> Callable[[], object]:
    """Assign a view of a tensor that is held, then write to that one."""
    values = torch.randn(3, WIDTH, WIDTH, device=weight(model).device)
    weight(model).data = values[1]
    return lambda: values.mul_(2)


def assign_before_and_after(model: Model) -> Callable[[], object]:
    """Go back to storage that was left, after writing to it."""
    left = weight(model).data

    def change() -> None:
        weight(model).data = new_values(model)
        left.mul_(2)
        weight(model).data = left

    return change


def flat_buffer(model: Model) -> Callable[[], object]:
    """Lay all weights into one buffer, then write to it."""
    flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    pieces = flat.split([parameter.numel() for parameter in model.parameters()])
    for parameter, piece in zip(model.parameters(), pieces, strict=True):
        parameter.data = piece.view_as(parameter)
    return lambda: flat.mul_(2)


def assign_transposed(model: Model) -> None:
    """Point a weight to storage in which it lies the other way round."""
    values = new_values(model)
    weight(model).data = values.t().contiguous().t() if weight(model).is_contiguous() else values


def set_new(model: Model) -> None:
    """Point a weight to other storage by ``set_``."""
    with torch.no_grad():
        weight(model).set_(new_values(model))  # type: ignore[call-overload]


def set_new_through_data(model: Model) -> None:
    """Write through an alias that was pointed elsewhere, and to the weight."""
    alias = weight(model).data
    alias.set_(new_values(model))  # type: ignore[call-overload]
    alias.mul_(2)
    weight(model).data = alias


def set_and_write(model: Model) -> Callable[[], object]:
    """Point a weight to the storage of a tensor that is held, then write to it."""
    values = new_values(model)
    with torch.no_grad():
        weight(model).set_(values)  # type: ignore[call-overload]
    return lambda: values.mul_(2)


def two_aliases(model: Model) -> Callable[[], object]:
    """Write through two aliases in turn."""
    aliases = [weight(model).data, weight(model).data.view(-1)]

    def change() -> None:
        aliases[0].mul_(2)
        aliases.reverse()

    return change


def tied_alias(model: Model) -> Callable[[], object]:
    """Let two weights share storage, then write through an alias of the other."""
    other = model.get_parameter("2.weight")
    other.data = weight(model).data
    alias = other.data
    return lambda: alias.mul_(2)


def inside_inference_mode(model: Model) -> Callable[[], object]:
    """Hold an alias that was made in inference mode, and write to it there."""
    with torch.inference_mode():
        alias = weight(model).data

    def change() -> None:
        with torch.inference_mode():
            alias.mul_(2)

    return change


CHANGES: dict[str, Change] = {
    ".data +=": add,
    ".data.mul_": lambda model: weight(model).data.mul_(2),
    ".data.copy_": lambda model: weight(model).data.copy_(new_values(model)),
    ".data[0] =": assign_item,
    ".data of a bias": lambda model: model.get_parameter("0.bias").data.add_(1),
    ".data.view": lambda model: weight(model).data.view(-1)[5:].mul_(2),
    ".data.data": lambda model: weight(model).data.data.mul_(2),
    ".data of a detached alias": lambda model: weight(model).detach().data.mul_(2),
    ".data of a view": lambda model: weight(model)[2:].data.mul_(2),
    ".data with out=": lambda model: torch.mul(weight(model).data, 2, out=weight(model).data),
    ".data in inference mode": torch.inference_mode()(lambda model: weight(model).data.mul_(2)),
    ".data of all": lambda model: [parameter.data.mul_(2) for parameter in model.parameters()],
    "new storage": assign,
    "transposed storage": assign_transposed,
    "exchanged storages": exchange,
    "set_": set_new,
    "set_ of .data": set_new_through_data,
}

HELD: dict[str, Way] = {
    "held .data": held(lambda weight: weight.data),
    "held view of .data": held(lambda weight: weight.data.t()[1:5]),
    "held flat view of .data": held(lambda weight: weight.data.view(-1)),
    "held .data.data": held(lambda weight: weight.data.data),
    "held .data of a view of .data": held(lambda weight: weight.data[1:].data),
    "held detached alias of .data": held(lambda weight: weight.data.detach()),
    "held .data of a detached alias": held(lambda weight: weight.detach().data),
    "held piece of .data": held(lambda weight: weight.data.chunk(4)[1]),
    "held as_strided .data": held(lambda weight: weight.data.as_strided((2, 2), (8, 2), 3)),
    "held parameter of .data": held(lambda weight: torch.nn.Parameter(weight.data)),
    "held two aliases": two_aliases,
    "held .data of inference mode": inside_inference_mode,
    "assigned and written": assign_and_write,
    "assigned view and written": assign_view_and_write,
    "left storage, written and assigned again": assign_before_and_after,
    "flat buffer": flat_buffer,
    "set_ and written": set_and_write,
    "shared storage": tied_alias,
}

WAYS: dict[str, Way] = {**{name: at_once(change) for name, change in CHANGES.items()}, **HELD}
