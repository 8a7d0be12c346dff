"""Groups casts that nothing can absorb into one kernel.

A parameter in front of a matrix product or a convolution is cast by a kernel of its own, since these are library
calls that fuse nothing; so is a weight's gradient behind one. Inductor turns an op over lists into one kernel:

before:  w0 = convert(p0, bfloat16); w1 = convert(p1, bfloat16); ... mm(x, w0) ... mm(y, w1)
after:   w0, w1 = _foreach_copy([empty(bfloat16), ...], [p0, p1]); ... mm(x, w0) ... mm(y, w1)

The casts of inputs move to the start of the graph: it is functional, so that its inputs hold their values until
its end. The casts of results move to the last of them. Left alone: casts with another use, into which Inductor can
fuse them; a cast with no other to join; CPU graphs. All casts of a group exist at once, as they do in a forward that
saves them for its backward; values do not change.
"""

from __future__ import annotations

import operator
from collections import defaultdict

import torch
from torch import fx

from xpu_amp_dynamo.lowering.optimiser.edit import casts_in, first_computation, source_of
from xpu_amp_dynamo.lowering.optimiser.library_calls import feeds_only_library_calls, stands_alone
from xpu_amp_dynamo.lowering.optimiser.ops import GPU_DEVICE_TYPES

aten = torch.ops.aten


def group_casts(graph: fx.Graph) -> bool:
    """Group the casts of inputs and of results that only library calls touch; tell whether there were any.

    Args:
        graph: an ATen graph as AOTAutograd hands it to Inductor, with ``val`` in its nodes' meta. Edited in place.
    """
    groups: dict[tuple[str, torch.dtype, torch.device], list[fx.Node]] = defaultdict(list)
    for node in casts_in(graph):
        value = node.meta["val"]
        kind = _kind_of(node) if value.device.type in GPU_DEVICE_TYPES else None
        if kind is not None:
            groups[kind, value.dtype, value.device].append(node)
    grouped = {key: casts for key, casts in groups.items() if len(casts) > 1}
    for (kind, _, _), casts in grouped.items():
        _group(graph, casts, first_computation(graph) if kind == "input" else casts[-1])
    return bool(grouped)


def _kind_of(cast: fx.Node) -> str | None:
    """Return ``"input"`` or ``"result"`` for a cast that would be a kernel of its own, else None."""
    if source_of(cast).op == "placeholder":
        return "input" if feeds_only_library_calls(cast) else None
    only_returned = all(user.op == "output" for user in cast.users)
    return "result" if only_returned and stands_alone(cast) else None


def _group(graph: fx.Graph, casts: list[fx.Node], place: fx.Node) -> None:
    """Replace casts by one op over all of them, in front of ``place``."""
    with graph.inserting_before(place):
        targets = [_empty_like(graph, cast) for cast in casts]
        copy = graph.call_function(aten._foreach_copy.default, (targets, [cast.args[0] for cast in casts]))
        copy.meta["val"] = [cast.meta["val"] for cast in casts]
        for position, cast in enumerate(casts):
            part = graph.call_function(operator.getitem, (copy, position))
            part.meta.update(cast.meta)
            cast.replace_all_uses_with(part)
    for cast in casts:
        graph.erase_node(cast)


def _empty_like(graph: fx.Graph, cast: fx.Node) -> fx.Node:
    """Add a tensor of the cast's size and dtype; nothing reads it, so that no memory is made for it."""
    value = cast.meta["val"]
    empty = graph.call_function(
        aten.empty_like.default, (source_of(cast),), {"dtype": value.dtype, "device": value.device, "pin_memory": False}
    )
    empty.meta["val"] = value
    return empty
