"""Concatenates in the lower dtype what every use of the concatenation casts down again.

before:  y = cat([convert(a, float32), b]); ... = convert(y, bfloat16)      # a is bfloat16, b is float32
after:   ... = cat([a, convert(b, bfloat16)])

Whoever makes ``b`` then writes half as many bytes. In front of a convolution ``b`` is also laid out channels last.
Left alone: concatenations with a use in float32. Values do not change, since casts and concatenations commute element
by element.
"""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.cast_rule import LOWER_DTYPES
from xpu_amp_dynamo.lowering.optimiser.edit import (
    Rebuilder,
    call_after,
    dtype_of,
    erase_unused,
    is_layout_op,
    members_of,
)
from xpu_amp_dynamo.lowering.optimiser.fold_casts import narrow_source
from xpu_amp_dynamo.lowering.optimiser.ops import CAST, CONCATENATION

aten = torch.ops.aten
# Where Inductor gives every convolution its inputs channels last.
CHANNELS_LAST_DEVICE_TYPES = ("cpu", "xpu")
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def narrow_concatenations(graph: fx.Graph) -> bool:
    """Run concatenations in the lower dtype to which all their uses cast; tell whether there were any.

    Args:
        graph: an ATen graph with ``val`` in its nodes' meta. Edited in place.
    """
    changed = False
    for concatenation in graph.find_nodes(op="call_function", target=CONCATENATION):
        casts = _casts_behind(concatenation) if dtype_of(concatenation) is torch.float32 else None
        dtypes = {dtype_of(cast) for cast in casts or ()}
        if casts and len(dtypes) == 1 and dtypes <= set(LOWER_DTYPES):
            _narrow(concatenation, casts)
            changed = True
    return changed


def _casts_behind(node: fx.Node) -> list[fx.Node] | None:
    """List the casts that use a node, directly or through layout ops; None if there is any other use."""
    casts: list[fx.Node] = []
    for user in node.users:
        if user.target == CAST:
            casts.append(user)
            continue
        behind = _casts_behind(user) if user.op == "call_function" and is_layout_op(user) else None
        if behind is None:
            return None
        casts += behind
    return casts


def _narrow(concatenation: fx.Node, casts: list[fx.Node]) -> None:
    """Replace the casts behind a concatenation by a concatenation of casts."""
    members = members_of(concatenation)

    def source(node: fx.Node, dtype: torch.dtype) -> fx.Node | None:
        if node not in members:
            return None
        return narrow_source(node, dtype) or _narrowed(node, dtype, casts[0])

    rebuilder = Rebuilder(source)
    for cast in casts:
        dtype = dtype_of(cast)
        assert dtype is not None
        first = cast.args[0]
        assert isinstance(first, fx.Node)
        cast.replace_all_uses_with(rebuilder.in_dtype(first, dtype))
    erase_unused(casts)


def _narrowed(member: fx.Node, dtype: torch.dtype, cast: fx.Node) -> fx.Node:
    """Cast a member of a concatenation whose result had been cast by ``cast``."""
    narrowed = call_after(member, CAST, (member, dtype), like=cast)
    format = CHANNELS_LAST.get(narrowed.meta["val"].dim())
    for_convolution = any(user.target == aten.convolution.default for user in cast.users)
    if format is None or not for_convolution or narrowed.meta["val"].device.type not in CHANNELS_LAST_DEVICE_TYPES:
        return narrowed
    # Inductor (torch 2.13) lays a concatenation out as its members are, which the cast hides: it would write one
    # layout and copy it into the other in front of the convolution.
    return call_after(narrowed, aten.clone.default, (narrowed,), like=narrowed, memory_format=format)
