"""Writes to a weight itself, to what shares its version, and by custom ops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import init
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from tests.runtime.weight_changes.small_model import WIDTH, Change, Model, Way, at_once, weight, without_grad


@torch.library.custom_op("weight_changes::double", mutates_args={"weight"})
def double(weight: torch.Tensor) -> None:
    """Double a tensor in place, by an op that PyTorch does not know."""
    weight.mul_(2)


@torch.library.custom_op("weight_changes::double_alias", mutates_args={"weight"})
def double_alias(weight: torch.Tensor) -> None:
    """Double a tensor in place, through an alias that has a version of its own."""
    weight.data.mul_(2)


def in_inference_mode(model: Model) -> None:
    """Double a weight in inference mode."""
    with torch.inference_mode():
        weight(model).mul_(2)


def by_inference_tensor(model: Model) -> None:
    """Copy a tensor of inference mode into a weight, inside that mode."""
    with torch.inference_mode():
        weight(model).copy_(torch.randn(WIDTH, WIDTH, device=weight(model).device))


def frozen_meanwhile(model: Model) -> None:
    """Write while no gradient is required."""
    weight(model).requires_grad_(False).mul_(2)
    weight(model).requires_grad_(True)


def frozen_meanwhile_through_data(model: Model) -> None:
    """Write through ``.data`` while no gradient is required."""
    model.requires_grad_(False)
    weight(model).data.mul_(2)
    model.requires_grad_(True)


def apply_while_frozen(model: Model) -> None:
    """Have Python write each element of a weight that requires no gradient."""
    weight(model).requires_grad_(False).apply_(lambda value: 2 * value)
    weight(model).requires_grad_(True)


def vector(model: Model) -> None:
    """Set all weights from one vector, of which they become views."""
    vector_to_parameters(parameters_to_vector(model.parameters()) * 2, model.parameters())


def vector_written_later(model: Model) -> Callable[[], object]:
    """Set all weights from one vector, then write to it."""
    flat = parameters_to_vector(model.parameters()).detach()
    vector_to_parameters(flat, model.parameters())
    return lambda: flat.mul_(2)


def two_of_one_version(model: Model) -> Callable[[], object]:
    """Hold a second parameter that was made of the first."""
    other = torch.nn.Parameter(weight(model))
    return lambda: other.mul_(2)


def write_row(model: Model) -> None:
    """Assign to a row."""
    weight(model)[0] = torch.randn(WIDTH, device=weight(model).device)


def randomly(fill: Callable[[torch.Tensor], object]) -> Change:
    """Return a change by a function of ``torch.nn.init``."""
    return lambda model: fill(weight(model))


CHANGES: dict[str, Change] = {
    "mul_": lambda model: weight(model).mul_(2),
    "a bias": lambda model: model.get_parameter("2.bias").add_(1),
    "copy_": lambda model: weight(model).copy_(torch.randn_like(weight(model))),
    "item assignment": write_row,
    "out=": lambda model: torch.mul(weight(model), 2, out=weight(model)),
    "index_add_": lambda model: weight(model).index_add_(
        0, torch.tensor([1], device=weight(model).device), torch.ones(1, WIDTH, device=weight(model).device)
    ),
    "masked_fill_": lambda model: weight(model).masked_fill_(
        torch.rand_like(weight(model)) < 0.3, torch.randn(()).item()
    ),
    "transposed view": lambda model: weight(model).t()[1:3].mul_(2),
    "foreach": lambda model: torch._foreach_add_([*model.parameters()], 1),
    "foreach copy": lambda model: torch._foreach_copy_(
        [*model.parameters()], [torch.randn_like(w) for w in model.parameters()]
    ),
    "foreach on .data": lambda model: torch._foreach_mul_([w.data for w in model.parameters()], 2),
    "foreach on detached": lambda model: torch._foreach_mul_([w.detach() for w in model.parameters()], 2),
    "custom op": lambda model: double(weight(model)),
    "custom op on .data": lambda model: double(weight(model).data),
    "custom op that writes through .data": lambda model: double_alias(weight(model)),
    "inference mode": in_inference_mode,
    "inference tensor": by_inference_tensor,
    "frozen meanwhile": frozen_meanwhile,
    "frozen meanwhile, through .data": frozen_meanwhile_through_data,
    "apply_": lambda model: weight(model).detach().apply_(lambda value: 2 * value),
    "apply_ while frozen": apply_while_frozen,
    "map_": lambda model: weight(model).detach().map_(torch.ones(WIDTH, WIDTH), lambda value, one: value + one),
    "map2_": lambda model: (
        weight(model).detach().map2_(torch.ones(WIDTH, WIDTH), torch.ones(WIDTH, WIDTH), lambda *values: sum(values))
    ),
    "vector_to_parameters": vector,
    "init.normal_": randomly(init.normal_),
    "init.kaiming_uniform_": randomly(init.kaiming_uniform_),
    "init.xavier_normal_": randomly(init.xavier_normal_),
    "init.trunc_normal_": randomly(init.trunc_normal_),
    "init.orthogonal_": randomly(init.orthogonal_),
}

HELD: dict[str, Way] = {
    "held detached alias": lambda model: (lambda alias: lambda: alias.mul_(2))(weight(model).detach()),
    "held view": lambda model: (lambda view: lambda: view.mul_(2))(weight(model).view(-1)[3:40]),
    "held view of a detached alias": lambda model: (lambda view: lambda: view.mul_(2))(weight(model).detach().t()[2]),
    "held parameter of one version": two_of_one_version,
    "vector written later": vector_written_later,
}

WAYS: dict[str, Way] = {
    name: without_grad(way) for name, way in {**{n: at_once(c) for n, c in CHANGES.items()}, **HELD}.items()
}
