"""Updates of weights that the store of casted weights must notice, and what a model gives then."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch.nn.utils import vector_to_parameters

Update = Callable[[torch.nn.Sequential], object]


def expected(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return what the model gives with every weight cast now."""
    lower = copy.deepcopy(model).bfloat16()
    with torch.no_grad():
        return lower(x.bfloat16()).float()


def in_place(model: torch.nn.Sequential) -> None:
    """Double a weight in place."""
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(2)


def load(model: torch.nn.Sequential) -> None:
    """Load other values."""
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})


def load_by_assignment(model: torch.nn.Sequential) -> None:
    """Replace all weights by loaded ones."""
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()}, assign=True)


def new_parameter(model: torch.nn.Sequential) -> None:
    """Replace a parameter."""
    model[0].weight = torch.nn.Parameter(model.get_parameter("0.weight").detach() + 1)


def new_storage(model: torch.nn.Sequential) -> None:
    """Give a parameter new storage."""
    weight = model.get_parameter("0.weight")
    weight.data = weight.detach() + 1


def vector(model: torch.nn.Sequential) -> None:
    """Set all weights from one vector."""
    weights = [*model.parameters()]
    vector_to_parameters(torch.ones(sum(w.numel() for w in weights), device=weights[0].device), weights)


def foreach(model: torch.nn.Sequential) -> None:
    """Add to all weights at once."""
    with torch.no_grad():
        torch._foreach_add_([*model.parameters()], 1)


def moved(model: torch.nn.Sequential) -> None:
    """Convert the model there and back, then update it."""
    model.to(torch.float64).to(torch.float32)
    in_place(model)


def step(make_optimizer: Callable[[Iterator[torch.nn.Parameter]], torch.optim.Optimizer]) -> Update:
    """Return an update by a step of an optimizer."""

    def run(model: torch.nn.Sequential) -> None:
        optimizer = make_optimizer(model.parameters())
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.step()

    return run


UPDATES: dict[str, Update] = {
    "in place": in_place,
    "load_state_dict": load,
    "load_state_dict by assignment": load_by_assignment,
    "new parameter": new_parameter,
    "new storage": new_storage,
    "vector_to_parameters": vector,
    "foreach": foreach,
    "moved": moved,
    "SGD": step(lambda weights: torch.optim.SGD(weights, lr=1.0)),
    "AdamW": step(lambda weights: torch.optim.AdamW(weights, lr=1.0)),
    "fused AdamW": step(lambda weights: torch.optim.AdamW(weights, lr=1.0, fused=True)),
    "fused SGD": step(lambda weights: torch.optim.SGD(weights, lr=1.0, fused=True)),
}
