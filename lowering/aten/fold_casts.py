"""Folds chains of casts that bring back a value which is there already, across layout ops.

before:  y = convert(view(convert(x, float32)), bfloat16)        # x is bfloat16
after:   y = view(x)

A float32 tensor whose elements all come from bfloat16 ones loses nothing on the way back. Kept: chains through a
narrower dtype, float32 -> bfloat16 -> float32, which round; casts for which the value that came first cannot stand
(see ``replace``). Values do not change.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from xpu_amp_dynamo.lowering.aten.edit import (
    call_after,
    casts_in,
    dtype_of,
    erase_unused,
    is_layout_op,
    members_of,
    source_of,
)
from xpu_amp_dynamo.lowering.aten.memory import Memory
from xpu_amp_dynamo.lowering.aten.ops import CAST, CONCATENATION
from xpu_amp_dynamo.lowering.aten.rebuild import Rebuilder
from xpu_amp_dynamo.lowering.aten.replace import Replacer
from xpu_amp_dynamo.policy.cast_rule import LOWER_DTYPES


def fold_casts(graph: fx.Graph) -> bool:
    """Replace casts back to a lower dtype by the values that they came from; tell whether there were any.

    Args:
        graph: an ATen graph with ``val`` in its nodes' meta. Edited in place.
    """
    widened = widened_from(graph)
    foldable = [cast for cast in casts_in(graph) if widened.get(source_of(cast)) is dtype_of(cast)]
    if not foldable:
        return False
    memory = Memory(graph)
    rebuilder, replacer = Rebuilder(memory, narrow_sources(widened)), Replacer(memory)
    folded = []
    for cast in foldable:
        if replacer.replace({cast: rebuilder.in_dtype(source_of(cast), cast.meta["val"].dtype)}):
            folded.append(cast)
    rebuilder.erase_unused()
    erase_unused(folded)
    return bool(folded)


def widened_from(graph: fx.Graph) -> dict[fx.Node, torch.dtype]:
    """Return the lower dtype from which every element of a float32 node was widened, for the nodes that have one."""
    widened: dict[fx.Node, torch.dtype] = {}
    for node in graph.nodes:
        dtype = _widened_from(node, widened)
        if dtype is not None:
            widened[node] = dtype
    return widened


def _widened_from(node: fx.Node, widened: dict[fx.Node, torch.dtype]) -> torch.dtype | None:
    """Return what a node was widened from, given that of the nodes before it."""
    if node.target == CAST:
        lower = dtype_of(source_of(node))
        return lower if dtype_of(node) is torch.float32 and lower in LOWER_DTYPES else None
    if node.target == CONCATENATION:
        dtypes = {widened.get(member) for member in members_of(node) if not _is_empty(member)}
        return dtypes.pop() if len(dtypes) == 1 else None
    return widened.get(source_of(node)) if node.op == "call_function" and is_layout_op(node) else None


def _is_empty(node: fx.Node) -> bool:
    """Tell whether a node surely has no elements, as caches have before the first token."""
    return dtype_of(node) is not None and any(size == 0 for size in node.meta["val"].shape if isinstance(size, int))


def narrow_sources(widened: dict[fx.Node, torch.dtype]) -> Callable[[fx.Node, torch.dtype], fx.Node | None]:
    """Return what tells what a node was widened from; for a tensor without elements beside such nodes, its cast."""

    def narrow_source(node: fx.Node, dtype: torch.dtype) -> fx.Node | None:
        if _is_empty(node) and widened.get(node) is not dtype:
            return call_after(node, CAST, (node, dtype), like=node)
        return directly_widened_from(node, dtype)

    return narrow_source


def directly_widened_from(node: fx.Node, dtype: torch.dtype) -> fx.Node | None:
    """Return what a cast widened from a dtype, None for other nodes."""
    return source_of(node) if node.target == CAST and dtype_of(source_of(node)) is dtype else None
