"""The values of nodes: fake tensors and symbolic sizes, as capture recorded them or as a pass recomputed them."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.functorch import is_wrapped
from xpu_amp_dynamo.compat.pytree import leaves_of
from xpu_amp_dynamo.compat.tensors import is_tracked_view, storage_address
from xpu_amp_dynamo.lowering.graph.functorch_levels import innermost, without_wrappers

# The first is Dynamo's, the second that of export.
_VALUE_KEYS = ("example_value", "val")


def value_of(node: fx.Node) -> Any:
    """Return a node's value: Dynamo keeps it under ``example_value``, export under ``val``."""
    return node.meta.get("example_value", node.meta.get("val"))


def has_value(node: fx.Node) -> bool:
    """Tell whether capture recorded a value for the node."""
    return "example_value" in node.meta or "val" in node.meta


def set_value(node: fx.Node, value: Any) -> None:
    """Store a node's value where its graph keeps values; strict export keeps some twice."""
    node.meta.update(dict.fromkeys(value_keys(node), value))


def value_keys(node: fx.Node) -> list[str]:
    """List the keys under which a node keeps its value."""
    return [key for key in _VALUE_KEYS if key in node.meta] or ["example_value"]


def is_exported(graph: fx.Graph) -> bool:
    """Tell whether a graph comes from export, by where its nodes keep their values."""
    return any("val" in node.meta for node in itertools.islice(filter(has_value, graph.nodes), 1))


def input_values(node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the node's arguments with every node replaced by its value, such that the node can run on them."""
    return fx.map_arg((node.args, node.kwargs), runnable_value_of)


def runnable_value_of(node: fx.Node) -> Any:
    """Return a node's value such that ops run on it now that capture is over.

    Capture has run what writes to the base of a view, after which autograd refuses some views that require grad, those
    of ``chunk`` for one; and a wrapper of ``torch.func`` is dead.
    """
    value = value_of(node)
    if not isinstance(value, torch.Tensor):
        return value
    if is_wrapped(value):
        return without_wrappers(value)
    return value.detach().requires_grad_() if value.requires_grad and is_tracked_view(value) else value


def on_tape(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor, of a trace or run that forgets it, as one that a differentiated call computed."""
    return tensor.detach().requires_grad_().view_as(tensor) if tensor.is_floating_point() else tensor


def tensor_inputs(node: fx.Node) -> list[fx.Node]:
    """List the input nodes that hold one tensor each."""
    return [n for n in node.all_input_nodes if isinstance(value_of(n), torch.Tensor)]


def tensors_in(value: object) -> list[torch.Tensor]:
    """List the tensors in a nested value."""
    return [leaf for leaf in leaves_of(value) if isinstance(leaf, torch.Tensor)]


def dtypes_in(value: object) -> list[torch.dtype]:
    """List the dtypes of the tensors in a nested value, in order."""
    return [tensor.dtype for tensor in tensors_in(value)]


def storages_in(value: object) -> set[int]:
    """Return what identifies the storages of the tensors in a nested value, but for those that have none."""
    return {storage for tensor in tensors_in(value) if (storage := storage_of(tensor)) is not None}


def storage_of(tensor: torch.Tensor) -> int | None:
    """Return what identifies a tensor's storage, None for layouts without one."""
    tensor = innermost(tensor)
    return storage_address(tensor) if tensor.layout is torch.strided else None
