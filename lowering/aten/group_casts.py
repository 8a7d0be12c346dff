"""Groups casts that nothing can absorb into one kernel.

A parameter in front of a matrix product or a convolution is cast by a kernel of its own, since these are library
calls that fuse nothing; so is a weight's gradient behind one. Inductor turns an op over lists into one kernel:

before:  w0 = convert(p0, bfloat16); w1 = convert(p1, bfloat16); ... mm(x, w0) ... mm(y, w1)
after:   w0, w1 = _foreach_copy([empty(bfloat16), ...], [p0, p1]); ... mm(x, w0) ... mm(y, w1)

The casts of inputs move to the start of the graph: it is functional, so that its inputs hold their values until
its end. The casts of results move to the last of them. Left alone: casts with another use, into which Inductor can
fuse them; before torch 2.13, casts beside convolutions, which also lay out anew; a cast with no other to join; CPU
graphs. All casts of a group exist at once, as they do in a forward that saves them for its backward; values do not
change.
"""

from __future__ import annotations

import operator
from collections import defaultdict

import torch
from torch import fx

from xpu_amp_dynamo.lowering.aten.edit import bases_of_views, casts_in, first_behind_inputs, on_gpu, source_of
from xpu_amp_dynamo.lowering.aten.library_calls import (
    feeds_a_kernel,
    feeds_only_library_calls,
    is_cast_alone,
    library_call_of,
)
from xpu_amp_dynamo.lowering.aten.memory import Memory
from xpu_amp_dynamo.lowering.graph.tags import tag_like

aten = torch.ops.aten


def group_casts(graph: fx.Graph) -> bool:
    """Group the casts of inputs and of results that only library calls touch; tell whether there were any.

    Args:
        graph: an ATen graph as AOTAutograd hands it to Inductor, with ``val`` in its nodes' meta. Edited in place.
    """
    groups: dict[tuple[str, torch.dtype, torch.device], list[fx.Node]] = defaultdict(list)
    kinds = _kinds_of_casts(graph)
    for cast, kind in kinds.items():
        groups[kind, cast.meta["val"].dtype, cast.meta["val"].device].append(cast)
    grouped = {key: casts for key, casts in groups.items() if len(casts) > 1}
    for (kind, _, _), casts in grouped.items():
        _group(graph, casts, first_behind_inputs(graph) if kind == "input" else casts[-1])
    return bool(grouped)


def _kinds_of_casts(graph: fx.Graph) -> dict[fx.Node, str]:
    """Return ``"input"`` or ``"result"`` for the casts on GPUs that would be kernels of their own."""
    casts = [cast for cast in casts_in(graph) if on_gpu(cast)]
    if not casts:
        return {}
    memory, bases = Memory(graph), bases_of_views(graph)
    inputs = [c for c in casts if source_of(c).op == "placeholder" and feeds_only_library_calls(c)]
    returned = [c for c in casts if all(user.op == "output" for user in c.users)]
    results = {bases[source_of(c)] for c in returned}
    alone = {result for result in results if _is_library_result(result) and not feeds_a_kernel(result)}
    kinds = dict.fromkeys(inputs, "input") | {c: "result" for c in returned if bases[source_of(c)] in alone}
    # A group reads earlier, or later, than its casts did.
    return {cast: kind for cast, kind in kinds.items() if not memory.is_written(source_of(cast))}


def _is_library_result(node: fx.Node) -> bool:
    called = library_call_of(node) if node.op == "call_function" else None
    return called is not None and not is_cast_alone(called)


def _group(graph: fx.Graph, casts: list[fx.Node], place: fx.Node) -> None:
    """Replace casts by one op over all of them, in front of ``place``."""
    with graph.inserting_before(place):
        targets = [_empty_like(graph, cast) for cast in casts]
        copy = graph.call_function(aten._foreach_copy.default, (targets, [cast.args[0] for cast in casts]))
        copy.meta["val"] = [cast.meta["val"] for cast in casts]
        tag_like(copy, casts)
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
