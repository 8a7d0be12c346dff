"""The values of nodes: fake tensors and symbolic sizes, as capture recorded them or as a pass recomputed them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree


def value_of(node: fx.Node) -> Any:
    """Return a node's value: Dynamo keeps it under ``example_value``, export under ``val``."""
    return node.meta.get("example_value", node.meta.get("val"))


def has_value(node: fx.Node) -> bool:
    """Tell whether capture recorded a value for the node."""
    return "example_value" in node.meta or "val" in node.meta


def set_value(node: fx.Node, value: Any) -> None:
    """Store a node's value where its graph keeps values."""
    node.meta["val" if "val" in node.meta and "example_value" not in node.meta else "example_value"] = value


def input_values(node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the node's arguments with every node replaced by its value."""
    return fx.map_arg((node.args, node.kwargs), value_of)


def tensor_inputs(node: fx.Node) -> list[fx.Node]:
    """List the input nodes that hold one tensor each."""
    return [n for n in node.all_input_nodes if isinstance(value_of(n), torch.Tensor)]


def tensors_in(value: object) -> list[torch.Tensor]:
    """List the tensors in a nested value."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def dtypes_in(value: object) -> list[torch.dtype]:
    """List the dtypes of the tensors in a nested value, in order."""
    return [tensor.dtype for tensor in tensors_in(value)]


def storage_of(tensor: torch.Tensor) -> int | None:
    """Return what identifies a tensor's storage, None for layouts without one."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else None
