"""Folds chains of casts that bring back a value which is there already, across layout ops.

before:  y = convert(view(convert(x, float32)), bfloat16)        # x is bfloat16
after:   y = view(x)

A float32 tensor whose elements all come from bfloat16 ones loses nothing on the way back. Kept: chains through a
narrower dtype, float32 -> bfloat16 -> float32, which round. Values do not change.
"""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.cast_rule import LOWER_DTYPES
from xpu_amp_dynamo.lowering.optimiser.edit import (
    Rebuilder,
    call_after,
    casts_in,
    dtype_of,
    erase_unused,
    is_layout_op,
    members_of,
    source_of,
)
from xpu_amp_dynamo.lowering.optimiser.ops import CAST, CONCATENATION


def fold_casts(graph: fx.Graph) -> bool:
    """Replace casts back to a lower dtype by the values that they came from; tell whether there were any.

    Args:
        graph: an ATen graph with ``val`` in its nodes' meta. Edited in place.
    """
    rebuilder = Rebuilder(narrow_source)
    folded = [cast for cast in casts_in(graph) if came_from(source_of(cast), dtype_of(cast))]
    for cast in folded:
        dtype = dtype_of(cast)
        assert dtype is not None
        cast.replace_all_uses_with(rebuilder.in_dtype(source_of(cast), dtype))
    erase_unused(folded)
    return bool(folded)


def came_from(node: fx.Node, dtype: torch.dtype | None) -> bool:
    """Tell whether every element of a float32 node is a widened element of a lower dtype."""
    if dtype not in LOWER_DTYPES:
        return False
    if node.target == CAST:
        return dtype_of(node) is torch.float32 and dtype_of(source_of(node)) is dtype
    if node.target == CONCATENATION:
        return all(came_from(member, dtype) or _is_empty(member) for member in members_of(node))
    return is_layout_op(node) and came_from(source_of(node), dtype)


def _is_empty(node: fx.Node) -> bool:
    """Tell whether a node surely has no elements, as caches have before the first token."""
    return dtype_of(node) is not None and any(size == 0 for size in node.meta["val"].shape if isinstance(size, int))


def narrow_source(node: fx.Node, dtype: torch.dtype) -> fx.Node | None:
    """Return what a node was widened from; for a tensor without elements, which came from anything, its cast."""
    if node.target == CAST and dtype_of(source_of(node)) is dtype:
        return source_of(node)
    return call_after(node, CAST, (node, dtype), like=next(iter(node.users))) if _is_empty(node) else None
