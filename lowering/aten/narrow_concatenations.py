"""Concatenates in the lower dtype what every use of the concatenation casts down again.

before:  y = cat([convert(a, float32), b]); ... = convert(y, bfloat16)      # a is bfloat16, b is float32
after:   ... = cat([a, convert(b, bfloat16)])

Whoever makes ``b`` then writes half as many bytes. In front of a convolution ``b`` is also laid out channels last.
Left alone: concatenations with a use in float32, and those
for whose casts nothing else may stand (see ``replace``). Values do not change, since casts and concatenations commute
element by element.
"""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.lowering.aten.edit import (
    call_after,
    dtype_of,
    erase_unused,
    is_layout_op,
    members_of,
    source_of,
)
from xpu_amp_dynamo.lowering.aten.fold_casts import directly_widened_from
from xpu_amp_dynamo.lowering.aten.memory import Memory
from xpu_amp_dynamo.lowering.aten.ops import CAST, CONCATENATION
from xpu_amp_dynamo.lowering.aten.rebuild import Rebuilder
from xpu_amp_dynamo.lowering.aten.replace import Replacer
from xpu_amp_dynamo.policy.cast_rule import LOWER_DTYPES

aten = torch.ops.aten
# Where Inductor gives every convolution its inputs channels last.
CHANNELS_LAST_DEVICE_TYPES = ("cpu", "xpu")
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def narrow_concatenations(graph: fx.Graph) -> bool:
    """Run concatenations in the lower dtype to which all their uses cast; tell whether there were any.

    Args:
        graph: an ATen graph with ``val`` in its nodes' meta. Edited in place.
    """
    found = [(node, _casts_behind(node)) for node in graph.find_nodes(op="call_function", target=CONCATENATION)]
    narrowable = [(node, casts) for node, casts in found if casts and dtype_of(node) is torch.float32]
    if not narrowable:
        return False
    memory = Memory(graph)
    replacer = Replacer(memory)
    changed = [_narrow(node, casts, memory, replacer) for node, casts in narrowable]
    return any(changed)


def _casts_behind(node: fx.Node) -> list[fx.Node]:
    """List the casts that use a node, directly or through layout ops; none if they differ or there is another use."""
    casts, pending = [], list(node.users)
    while pending:
        user = pending.pop()
        if user.target == CAST:
            casts.append(user)
        elif user.op == "call_function" and is_layout_op(user):
            pending += user.users
        else:
            return []
    dtypes = {dtype_of(cast) for cast in casts}
    return casts if len(dtypes) == 1 and dtypes <= set(LOWER_DTYPES) else []


def _narrow(concatenation: fx.Node, casts: list[fx.Node], memory: Memory, replacer: Replacer) -> bool:
    """Replace the casts behind a concatenation by a concatenation of casts; tell whether they could be."""
    members = set(members_of(concatenation))

    def source(node: fx.Node, dtype: torch.dtype) -> fx.Node | None:
        if node not in members:
            return None
        return directly_widened_from(node, dtype) or _narrowed(node, dtype, casts[0])

    rebuilder = Rebuilder(memory, source)
    dtype = casts[0].meta["val"].dtype
    replaced = replacer.replace({cast: rebuilder.in_dtype(source_of(cast), dtype) for cast in casts})
    rebuilder.erase_unused()
    erase_unused(casts)
    return replaced


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
