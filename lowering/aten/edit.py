"""What the passes share: questions about nodes, and edits that keep the values of nodes true."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.fake_tensors import mode_in_use, with_python_kernels
from xpu_amp_dynamo.compat.graph_modules import is_erased
from xpu_amp_dynamo.compat.tensors import is_surely_contiguous
from xpu_amp_dynamo.lowering.aten.ops import (
    CAST,
    CONCATENATION,
    GPU_DEVICE_TYPES,
    LAYOUT_OPS,
    RESHAPES,
    SPLITS,
    VIEWS,
    WIDENING,
    aten,
)
from xpu_amp_dynamo.lowering.graph.values import runnable_value_of


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
    return node.target in LAYOUT_OPS or _is_split(node) or multiplies_by_one(node)


def is_view(node: fx.Node) -> bool:
    """Tell whether a node shows memory of its first argument."""
    if node.target in RESHAPES:
        return is_surely_contiguous(source_of(node).meta["val"])
    return node.target in VIEWS or _is_split(node)


def is_view_op(node: fx.Node) -> bool:
    """Tell whether a node shows memory of its first argument, or would if that were laid out otherwise."""
    return node.target in VIEWS or node.target in RESHAPES or _is_split(node)


def _is_split(node: fx.Node) -> bool:
    return node.target in SPLITS or (node.target is operator.getitem and source_of(node).target in SPLITS)


def multiplies_by_one(node: fx.Node) -> bool:
    """Tell whether a node scales by one, as attention that was given that scale does."""
    return bool(node.target == aten.mul.Scalar and node.args[1] == 1)


def base_of(node: fx.Node) -> fx.Node:
    """Return the value of which a node is, or under another layout might be, a view."""
    while node.op == "call_function" and is_view_op(node):
        node = source_of(node)
    return node


def bases_of_views(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Return the value of which each node is a view, the node itself if it is none."""
    bases: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        bases[node] = bases[source_of(node)] if node.op == "call_function" and is_view(node) else node
    return bases


def on_gpu(node: fx.Node) -> bool:
    """Tell whether a node's tensor is on a GPU."""
    return node.meta["val"].device.type in GPU_DEVICE_TYPES


def members_of(concatenation: fx.Node) -> list[fx.Node]:
    """List the tensors that a concatenation joins."""
    members = concatenation.args[0]
    assert isinstance(members, (list, tuple))
    return [member for member in members if isinstance(member, fx.Node)]


def evaluate(
    target: Callable[..., Any], args: Any, kwargs: Mapping[str, Any], values: Mapping[fx.Node, Any] | None = None
) -> Any:
    """Return what a call gives on the values of its nodes: those given here, else those that the nodes have.

    Raises what the op raises.
    """
    known = values or {}
    args, kwargs = fx.map_arg((args, dict(kwargs)), lambda n: known[n] if n in known else runnable_value_of(n))
    fake_mode = mode_in_use((args, kwargs))
    assert fake_mode is not None
    with fake_mode, with_python_kernels():
        return target(*args, **kwargs)


def call_after(
    place: fx.Node, target: Callable[..., Any], args: tuple[Any, ...], like: fx.Node, **kwargs: Any
) -> fx.Node:
    """Insert a call behind ``place`` and return it, with the meta of ``like`` and a value of its own.

    Behind an input means in front of its first use, as inputs stay in front of everything else.
    Raises what the op raises, before anything is inserted.
    """
    graph = place.graph
    kwargs = kwargs or (dict(like.kwargs) if target == like.target else {})
    value = evaluate(target, args, kwargs)
    with graph.inserting_before(min(place.users) if place.op == "placeholder" else place.next):
        node = graph.call_function(target, args, kwargs)
    node.meta.update(like.meta)
    node.meta["val"] = value
    return node


def first_behind_inputs(graph: fx.Graph) -> fx.Node:
    """Return the first node behind all inputs; the tokens of ops with effects are made before them."""
    return list(graph.find_nodes(op="placeholder"))[-1].next


def erase_unused(nodes: Iterable[fx.Node]) -> None:
    """Erase casts, layout ops and products that nothing uses any more, and those that only they used."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if not is_erased(node) and not node.users and _may_erase(node):
            pending.extend(node.all_input_nodes)
            node.graph.erase_node(node)


def _may_erase(node: fx.Node) -> bool:
    return node.target in _COMPUTING_NOTHING_ELSE or (node.op == "call_function" and is_layout_op(node))


_COMPUTING_NOTHING_ELSE = frozenset((CAST, CONCATENATION, *WIDENING, *WIDENING.values()))
