"""Gives memory that more than one cast could see the dtype that it was captured with, at its base.

before:  y = linear(x, w); kernel(y); z = relu(y)                                  # y: float32, bfloat16 once lowered
after:   y = linear(x, w); kept = y.to(float32); kernel(kept); z = relu(kept)

A cast in front of a write would take the write away with its copy; casts of two outputs would part what they share; one
of a view would lay it out anew. So the cast stands behind what makes the memory, in front of all views. Where the
lowering leaves the dtype alone, it takes the pin out again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import fx

from xpu_amp_dynamo.compat.tensors import is_surely_dense
from xpu_amp_dynamo.lowering.graph.casting import convert_behind, mark_as_cast
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS, base_op_name
from xpu_amp_dynamo.lowering.graph.values import storage_of, storages_in, tensors_in, value_of
from xpu_amp_dynamo.lowering.graph.writes import mutated_inputs, writes_unseen

# Ops that see memory and not the tensor.
_SEE_MEMORY = frozenset(("as_strided", "resize", "resize_as", "set", "untyped_storage", "view_as_complex"))
# Marks a pin until it turns out to be a cast or to do nothing.
_PIN_KEY = "xpu_amp_dynamo.pin"


def pin_captured_dtypes(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Pin the first tensor in each memory that is written to, or that outputs share; tell whether there was any.

    Memory of the graph's inputs needs none, since lowering does not change their dtypes. Nor does memory made inside
    regions, unless a kernel or the like writes to it: its captured dtype is that of autocast.
    """
    everywhere = _storages_of(n for node in gm.graph.nodes if writes_unseen(node) for n in mutated_inputs(node))
    outside = storages_written(gm.graph.nodes)
    if context.preserve_output_dtype:
        outside |= shared_by_outputs(gm.graph)
    return bool(pin_memory(gm.graph.nodes, everywhere, outside, context))


def storages_written(nodes: Iterable[fx.Node]) -> set[int]:
    """Return the storages that calls write to, or that they look at as memory."""
    return _storages_of(n for node in nodes for n in _reached_as_memory(node))


def pin_memory(
    nodes: Iterable[fx.Node], everywhere: set[int], outside: set[int], context: LoweringContext
) -> list[fx.Node]:
    """Pin the first tensor in each of these memories and return the pins.

    Args:
        nodes: nodes of one graph in order.
        everywhere: storages to pin wherever they are made.
        outside: storages to pin where they are made outside regions.
        context: the lowering in hand.
    """
    left = everywhere | outside
    pins = []
    for node in list(nodes) if left else ():
        value = value_of(node)
        storage = storage_of(value) if isinstance(value, torch.Tensor) else None
        if storage is None or storage not in left:
            continue
        left.remove(storage)
        inside = context.states[node].captured.in_region and storage not in everywhere
        if node.op in CALLS and not inside:
            pins.append(_pin(node))
            context.know_as(pins[-1], node)
    return pins


def _pin(node: fx.Node) -> fx.Node:
    """Give all users of a node a conversion to the dtype that it has."""
    pin = convert_behind(node, value_of(node))
    mark_as_pin(pin)
    return pin


def mark_as_pin(conversion: fx.Node) -> None:
    """Have a conversion count as a pin: as one that may turn out to do nothing."""
    conversion.meta[_PIN_KEY] = True


def is_pin(node: fx.Node) -> bool:
    """Tell whether a node pins a dtype that lowering may still change."""
    return _PIN_KEY in node.meta


def settle_pin(pin: fx.Node) -> bool:
    """Make a pin a cast if its source has another dtype by now, else take it out; tell whether it is a cast."""
    (source,) = pin.all_input_nodes
    if value_of(source).dtype is value_of(pin).dtype:
        pin.replace_all_uses_with(source)
        pin.graph.erase_node(pin)
        return False
    del pin.meta[_PIN_KEY]
    mark_as_cast(pin)
    return True


def shared_by_outputs(graph: fx.Graph) -> set[int]:
    """Return the storages that several outputs show, and those that one shows with gaps or overlaps."""
    tensors = [tensor for node in graph.output_node().all_input_nodes for tensor in tensors_in(value_of(node))]
    shows = Counter(map(storage_of, tensors))
    return storages_in([t for t in tensors if shows[storage_of(t)] > 1 or not _is_dense(t)])


def _reached_as_memory(node: fx.Node) -> Sequence[fx.Node]:
    """List the inputs of a call that it writes to or looks at as memory."""
    if node.op in CALLS and base_op_name(node) in _SEE_MEMORY:
        return node.all_input_nodes
    return mutated_inputs(node)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Tell whether a cast surely has the strides of a tensor."""
    return tensor.layout is not torch.strided or is_surely_dense(tensor)


def _storages_of(nodes: Iterable[fx.Node]) -> set[int]:
    return storages_in(list(map(value_of, nodes)))
