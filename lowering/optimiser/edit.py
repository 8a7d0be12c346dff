"""Edits that the passes share: adds nodes with their values, and repeats layout ops on casted tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx
from torch._guards import detect_fake_mode
from torch._prims_common import is_contiguous_or_false

from xpu_amp_dynamo.lowering.fake_run import run_node
from xpu_amp_dynamo.lowering.optimiser.ops import (
    CAST,
    CONCATENATION,
    GPU_DEVICE_TYPES,
    LAYOUT_OPS,
    RESHAPES,
    SPLITS,
    VIEWS,
    aten,
)


def casts_in(graph: fx.Graph) -> list[fx.Node]:
    """List a graph's conversions of dtype, in order."""
    return list(graph.find_nodes(op="call_function", target=CAST))


def source_of(cast: fx.Node) -> fx.Node:
    """Return what a cast, a layout op or a pick from several tensors reads first."""
    source = cast.args[0]
    assert isinstance(source, fx.Node)
    return source


def dtype_of(node: fx.Node) -> torch.dtype | None:
    """Return the dtype of a node's tensor, None for a node that is no tensor."""
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def is_layout_op(node: fx.Node) -> bool:
    """Tell whether a node holds elements of its first argument, all or some, unchanged."""
    return node.target in LAYOUT_OPS or _is_split(node) or _multiplies_by_one(node)


def is_view(node: fx.Node) -> bool:
    """Tell whether a node shows memory of its first argument."""
    if node.target in RESHAPES:
        return bool(is_contiguous_or_false(source_of(node).meta["val"]))
    return node.target in VIEWS or _is_split(node)


def _is_split(node: fx.Node) -> bool:
    return node.target in SPLITS or (node.target is operator.getitem and source_of(node).target in SPLITS)


def _multiplies_by_one(node: fx.Node) -> bool:
    """Tell whether a node scales by one, as attention that was given that scale does."""
    return bool(node.target == aten.mul.Scalar and node.args[1] == 1)


def on_gpu(node: fx.Node) -> bool:
    """Tell whether a node's tensor is on a GPU."""
    return node.meta["val"].device.type in GPU_DEVICE_TYPES


def members_of(concatenation: fx.Node) -> list[fx.Node]:
    """List the tensors that a concatenation joins."""
    members = concatenation.args[0]
    assert isinstance(members, (list, tuple))
    return [member for member in members if isinstance(member, fx.Node)]


def call_after(
    place: fx.Node, target: Callable[..., Any], args: tuple[Any, ...], like: fx.Node, **kwargs: Any
) -> fx.Node:
    """Insert a call behind ``place`` and return it, with the meta of ``like`` and a value of its own."""
    graph = place.graph
    with graph.inserting_before(first_computation(graph) if place.op == "placeholder" else place.next):
        node = graph.call_function(target, args, kwargs or (dict(like.kwargs) if target == like.target else {}))
    node.meta.update(like.meta)
    fake_mode = detect_fake_mode([argument.meta["val"] for argument in node.all_input_nodes])
    assert fake_mode is not None
    with fake_mode:
        node.meta["val"] = run_node(node)
    return node


def first_computation(graph: fx.Graph) -> fx.Node:
    """Return the first node behind the inputs."""
    return next(node for node in graph.nodes if node.op not in ("placeholder", "get_attr"))


class Rebuilder:
    """Repeats layout ops on tensors of another dtype, each op once."""

    def __init__(self, source: Callable[[fx.Node, torch.dtype], fx.Node | None]) -> None:
        """Take a function that returns what stands for a node in a dtype, None to look further up."""
        self._source = source
        self._made: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}

    def in_dtype(self, node: fx.Node, dtype: torch.dtype) -> fx.Node:
        """Return the elements of a node in a dtype: its layout ops repeated on the source in that dtype."""
        key = (node, dtype)
        if key not in self._made:
            self._made[key] = self._source(node, dtype) or self._repeat(node, dtype)
        return self._made[key]

    def _repeat(self, node: fx.Node, dtype: torch.dtype) -> fx.Node:
        assert callable(node.target)
        first: Any
        if _multiplies_by_one(node):
            return self.in_dtype(source_of(node), dtype)
        if node.target == CONCATENATION:
            first = [self.in_dtype(member, dtype) for member in members_of(node)]
        else:
            first = self.in_dtype(source_of(node), dtype)
        return call_after(node, node.target, (first, *node.args[1:]), like=node)


def erase_unused(nodes: Iterable[fx.Node]) -> None:
    """Erase casts and layout ops that nothing uses any more, and those that only they used."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if not node._erased and not node.users and _may_erase(node):
            pending.extend(node.all_input_nodes)
            node.graph.erase_node(node)


def _may_erase(node: fx.Node) -> bool:
    return node.target in (CAST, CONCATENATION) or (node.op == "call_function" and is_layout_op(node))
