"""Casts a value once for all of its views, in front of them.

before:  convert(slice(x, 0, 8), bfloat16); convert(slice(x, 8, 16), bfloat16)
after:   y = convert(x, bfloat16); slice(y, 0, 8); slice(y, 8, 16)

before:  convert(expand(x), bfloat16)
after:   expand(convert(x, bfloat16))

One cast replaces several where they touch at least as many elements as the value has; sizes may be symbolic. Whoever
makes the value can then write the lower dtype, and library calls read views of it. Left alone: casts that together
touch fewer elements, or surely know too little about it; casts to float32, which make more bytes; casts whose own
memory is seen or whose value is written to (see ``replace``). Values do not change.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from xpu_amp_dynamo.lowering.aten.edit import (
    bases_of_views,
    call_after,
    casts_in,
    dtype_of,
    erase_unused,
    source_of,
)
from xpu_amp_dynamo.lowering.aten.memory import Memory
from xpu_amp_dynamo.lowering.aten.ops import CAST
from xpu_amp_dynamo.lowering.aten.rebuild import Rebuilder
from xpu_amp_dynamo.lowering.aten.replace import Replacer
from xpu_amp_dynamo.policy.cast_rule import LOWER_DTYPES


def place_casts(graph: fx.Graph) -> bool:
    """Move casts to a lower dtype in front of views where that touches no more elements; tell whether any moved.

    Args:
        graph: an ATen graph with ``val`` in its nodes' meta. Edited in place.
    """
    memory = Memory(graph)
    bases = bases_of_views(graph)
    groups: dict[tuple[fx.Node, torch.dtype], list[fx.Node]] = defaultdict(list)
    for cast in casts_in(graph):
        dtype = dtype_of(cast)
        if dtype in LOWER_DTYPES and dtype_of(source_of(cast)) is torch.float32 and not memory.is_seen(cast):
            groups[bases[source_of(cast)], dtype].append(cast)
    replacer = Replacer(memory)
    worthy = [(*key, casts) for key, casts in groups.items() if _is_worth_moving(key[0], casts)]
    moved = [_cast_once(value, dtype, casts, memory, replacer) for value, dtype, casts in worthy]
    return any(moved)


def _is_worth_moving(value: fx.Node, casts: list[fx.Node]) -> bool:
    """Tell whether casts of views touch more elements than the viewed value has, or as many in several casts."""
    touched = sum(cast.meta["val"].numel() for cast in casts)
    size = value.meta["val"].numel()
    return statically_known_true(touched > size) or (len(casts) > 1 and statically_known_true(touched >= size))


def _cast_once(value: fx.Node, dtype: torch.dtype, casts: list[fx.Node], memory: Memory, replacer: Replacer) -> bool:
    """Replace casts of views by views of one cast; tell whether they could be."""
    whole = next((cast for cast in casts if source_of(cast) is value), casts[0])
    moved = call_after(value, CAST, (value, dtype), like=whole)
    rebuilder = Rebuilder(memory, lambda node, _: moved if node is value else None)
    replaced = replacer.replace({cast: rebuilder.in_dtype(source_of(cast), dtype) for cast in casts})
    rebuilder.erase_unused()
    erase_unused([moved, *casts])
    return replaced
