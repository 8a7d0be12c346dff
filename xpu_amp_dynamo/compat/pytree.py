"""Nested values: lists, tuples and dicts of anything, and whatever else is registered as such.

Of ``torch.utils._pytree``, which graphs, export and Dynamo take values apart by. Checked on torch 2.13.0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils import _pytree


def leaves_of(value: object) -> list[Any]:
    """List what a nested value holds, in order."""
    return _pytree.tree_leaves(value)


def tensors_of_result(value: object) -> list[torch.Tensor]:
    """List the tensors of what a model returns, in order; those in dataclasses too, which count as leaves elsewhere."""
    found: list[torch.Tensor] = []
    for leaf in leaves_of(value):
        if isinstance(leaf, torch.Tensor):
            found.append(leaf)
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            found += tensors_of_result([getattr(leaf, each.name) for each in dataclasses.fields(leaf)])
    return found


def with_leaves(value: object, leaves: Iterable[Any]) -> Any:
    """Return a value nested as another one is that holds other leaves, given in order."""
    return _pytree.tree_unflatten(leaves, _pytree.tree_structure(value))


def map_leaves(function: Callable[[Any], Any], value: object) -> Any:
    """Return a nested value with each leaf replaced by what a function gives for it."""
    return _pytree.tree_map(function, value)


def map_tensors(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """Return a nested value with each tensor replaced by what a function gives for it, and other leaves as they are."""
    return _pytree.tree_map_only(torch.Tensor, function, value)
