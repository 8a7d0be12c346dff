"""Changes by methods of modules: loaded, converted, replaced, tied, parametrized and pruned weights."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.nn.utils import fusion, parametrizations, parametrize, prune

from tests.runtime.weight_changes.small_model import WIDTH, Change, Model, Way, at_once, small_model, weight


def doubled(model: Model) -> dict[str, torch.Tensor]:
    """Return a state dictionary of doubled values."""
    return {name: value * 2 for name, value in model.state_dict().items()}


def write_state(model: Model) -> None:
    """Write to the tensors of a state dictionary, which share the weights' storage."""
    for value in model.state_dict().values():
        value.mul_(2)


def load_file(model: Model) -> None:
    """Load what was saved to a file."""
    file = io.BytesIO()
    torch.save(doubled(model), file)
    file.seek(0)
    model.load_state_dict(torch.load(file))


def load_assigned_and_write(model: Model) -> Callable[[], object]:
    """Load by assignment, then write to what was assigned."""
    state = doubled(model)
    model.load_state_dict(state, assign=True)
    return lambda: [value.mul_(2) for value in state.values()]


def converted(there: Callable[[Model], object], back: Callable[[Model], object]) -> Change:
    """Return a change while the model is of another dtype."""

    def change(model: Model) -> None:
        there(model)
        weight(model).data.mul_(2)
        back(model)

    return change


@contextmanager
def swapping() -> Iterator[None]:
    """Let conversions swap tensors."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def to_empty(model: Model) -> None:
    """Empty a model and fill it anew."""
    device = weight(model).device
    model.to_empty(device=device)
    model.apply(reset)


def from_meta(model: Model) -> None:
    """Fill a model from one on the meta device."""
    device = weight(model).device
    model.to("meta").to_empty(device=device)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)


def write_data(module: torch.nn.Module) -> None:
    """Double the parameters of one module."""
    for parameter in module.parameters(recurse=False):
        parameter.data.mul_(2)


def reset(module: torch.nn.Module) -> None:
    """Initialize the parameters of a linear layer anew."""
    if isinstance(module, torch.nn.Linear):
        module.reset_parameters()


def share_memory(model: Model) -> None:
    """Move weights to shared memory, then write to them."""
    model.share_memory()
    weight(model).data.mul_(2)


def replace(model: Model) -> None:
    """Replace a parameter."""
    model[0].weight = torch.nn.Parameter(weight(model).detach() * 2)


def replace_in_dictionary(model: Model) -> None:
    """Replace a parameter where modules keep it."""
    model[0]._parameters["weight"] = torch.nn.Parameter(weight(model).detach() * 2)


def delete_and_register(model: Model) -> None:
    """Replace a parameter by ``register_parameter``."""
    value = weight(model).detach() * 2
    del model[0].weight
    model[0].register_parameter("weight", torch.nn.Parameter(value))


def replace_module(model: Model) -> None:
    """Replace a layer."""
    model[0] = torch.nn.Linear(WIDTH, WIDTH, device=weight(model).device)


def exchange_modules(model: Model) -> None:
    """Exchange two layers."""
    model[0], model[2] = model[2], model[0]


def tie(model: Model) -> None:
    """Tie a weight to another, and that one to a new one before."""
    model[0].weight = torch.nn.Parameter(torch.randn_like(weight(model)))
    model[2].weight = weight(model)


def write_tied(model: Model) -> Callable[[], object]:
    """Tie two weights, then write through the other."""
    model[2].weight = weight(model)
    return lambda: model.get_parameter("2.weight").data.mul_(2)


def swap_tensors(model: Model) -> None:
    """Swap a weight with another parameter."""
    torch.utils.swap_tensors(weight(model), torch.nn.Parameter(torch.randn_like(weight(model))))


def swap_and_write(model: Model) -> Callable[[], object]:
    """Hold an alias of a parameter that a weight was swapped with."""
    other = torch.nn.Parameter(torch.randn_like(weight(model)))
    alias = other.data
    torch.utils.swap_tensors(weight(model), other)
    return lambda: alias.mul_(2)


def take_values(model: Model) -> None:
    """Take the weights of a copy that was changed."""
    other = copy.deepcopy(model)
    for parameter, changed in zip(model.parameters(), other.parameters(), strict=True):
        changed.data.mul_(2)
        parameter.data = changed.data


def fuse(model: Model) -> None:
    """Fuse a linear layer with a normalisation."""
    norm = torch.nn.BatchNorm1d(WIDTH, device=weight(model).device).eval()
    torch.nn.init.constant_(norm.weight, 2)
    layer = model[0].eval()
    assert isinstance(layer, torch.nn.Linear)
    model[0] = fusion.fuse_linear_bn_eval(layer, norm)


class Twice(torch.nn.Module):
    """A parametrization."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the weight."""
        return x * 2

    def right_inverse(self, x: torch.Tensor) -> torch.Tensor:
        """Return the parameter."""
        return x / 2


def parametrize_for_good(model: Model) -> None:
    """Parametrize a weight and leave it so, unparametrized."""
    parametrize.register_parametrization(model[0], "weight", Twice(), unsafe=True)
    model.get_parameter("0.parametrizations.weight.original").data.mul_(2)
    parametrize.remove_parametrizations(model[0], "weight")


def write_original(register: Callable[[torch.nn.Module], object], name: str) -> Way:
    """Return the way that writes to the parameter behind a parametrized weight."""

    def prepare(model: Model) -> Callable[[], object]:
        register(model[0])
        original = model.get_parameter(f"0.parametrizations.weight.{name}")
        return lambda: original.data.mul_(2)

    return prepare


def assign_parametrized(model: Model) -> Callable[[], object]:
    """Assign to a parametrized weight."""
    parametrize.register_parametrization(model[0], "weight", Twice())

    def change() -> None:
        model[0].weight = torch.randn(WIDTH, WIDTH, device=model[2].weight.device)  # type: ignore[arg-type]

    return change


def normalize_for_good(normalize: Callable[[torch.nn.Module], object]) -> Change:
    """Return a change by a normalisation of the weight, and its removal."""

    def change(model: Model) -> None:
        weight(model).data.add_(torch.randn_like(weight(model)))
        normalize(model[0])
        parametrize.remove_parametrizations(model[0], "weight")

    return change


def prune_for_good(model: Model) -> None:
    """Prune some weights, for good."""
    weight(model).data.add_(torch.randn_like(weight(model)))
    prune.l1_unstructured(model[0], "weight", amount=0.3)
    prune.remove(model[0], "weight")


def write_pruned(model: Model) -> Callable[[], object]:
    """Prune a weight, then write to the parameter behind it."""
    prune.random_unstructured(model[0], "weight", amount=0.3)
    return lambda: model.get_parameter("0.weight_orig").data.mul_(2)


def prune_more(model: Model) -> Callable[[], object]:
    """Change the mask of a pruned weight."""
    prune.random_unstructured(model[0], "weight", amount=0.1)
    return lambda: prune.random_unstructured(model[0], "weight", amount=0.3)


CHANGES: dict[str, Change] = {
    "load_state_dict": lambda model: model.load_state_dict(doubled(model)),
    "load_state_dict by assignment": lambda model: model.load_state_dict(doubled(model), assign=True),
    "load_state_dict of one": lambda model: model.load_state_dict({"0.weight": weight(model) * 2}, strict=False),
    "load_state_dict, swapping": swapping()(lambda model: model.load_state_dict(doubled(model))),
    "load_state_dict of another": lambda model: model.load_state_dict(small_model().state_dict()),
    "loaded file": load_file,
    "written state_dict": write_state,
    "half and float": converted(Model.half, Model.float),
    "bfloat16 and float": converted(Model.bfloat16, Model.float),
    "double and float": converted(Model.double, Model.float),
    "to and back": converted(lambda model: model.to(torch.float64), lambda model: model.to(torch.float32)),
    "half and float, swapping": swapping()(converted(Model.half, Model.float)),
    "apply": lambda model: model.apply(reset),
    "apply of .data": lambda model: model.apply(write_data),
    "to_empty": to_empty,
    "from meta": from_meta,
    "share_memory": share_memory,
    "new parameter": replace,
    "new parameter in _parameters": replace_in_dictionary,
    "register_parameter": delete_and_register,
    "new module": replace_module,
    "exchanged modules": exchange_modules,
    "tied": tie,
    "swap_tensors": swap_tensors,
    "values of a copy": take_values,
    "fused normalisation": fuse,
    "parametrized for good": parametrize_for_good,
    "weight_norm for good": normalize_for_good(parametrizations.weight_norm),
    "spectral_norm for good": normalize_for_good(parametrizations.spectral_norm),
    "pruned for good": prune_for_good,
}

HELD: dict[str, Way] = {
    "load_state_dict by assignment, written": load_assigned_and_write,
    "tied, other written": write_tied,
    "swap_tensors, alias written": swap_and_write,
    "parametrized, original written": write_original(
        lambda m: parametrize.register_parametrization(m, "weight", Twice()), "original"
    ),
    "parametrized, assigned": assign_parametrized,
    "weight_norm, original written": write_original(parametrizations.weight_norm, "original0"),
    "pruned, original written": write_pruned,
    "pruned more": prune_more,
}

WAYS: dict[str, Way] = {**{name: at_once(change) for name, change in CHANGES.items()}, **HELD}
