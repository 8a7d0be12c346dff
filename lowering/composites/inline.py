"""Puts the ops that a trace found inside a call in the place of the call."""

from __future__ import annotations

from typing import NamedTuple

from torch import fx

from xpu_amp_dynamo.compat.pytree import map_tensors
from xpu_amp_dynamo.lowering.graph.casting import Caster, is_traced_cast
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.graft import Copies, graft, move_attribute
from xpu_amp_dynamo.lowering.graph.node_kind import attribute_of
from xpu_amp_dynamo.lowering.graph.values import has_value, on_tape, set_value, tensors_in, value_of


class Inlined(NamedTuple):
    """What replaced a call: the copied nodes in order, and the nodes that hold its results."""

    nodes: list[fx.Node]
    results: list[fx.Node]


def inline_trace(node: fx.Node, traced: fx.GraphModule, context: LoweringContext, caster: Caster) -> Inlined:
    """Replace a call by the ops that a trace of it found.

    Args:
        node: the call; it is erased, with the nodes that pick its results.
        traced: the graph of its contents, with ``node.all_input_nodes`` as placeholders in this order.
        context: the lowering in hand; what it knows of the call it knows of the replacement afterwards.
        caster: makes the casts, so that they are shared with those outside.
    """
    nodes: list[fx.Node] = []
    state = context.states[node]

    def copy(inner: fx.Node, copies: Copies) -> fx.Node:
        if is_traced_cast(inner):
            return caster.cast(copies[inner.all_input_nodes[0]], value_of(inner).dtype, node, state)
        new = _copy_constant(inner, node) if inner.op == "get_attr" else _copy(inner, node, copies)
        context.states[new] = state
        nodes.append(new)
        return new

    grafted = graft(node, traced, node.all_input_nodes, copy)
    for old, new in grafted.results:
        if old in context.recorded:
            context.recorded.setdefault(new, context.recorded[old])
    context.forget(grafted.erased)
    return Inlined(nodes, [new for _, new in grafted.results])


def _copy(inner: fx.Node, node: fx.Node, copies: Copies) -> fx.Node:
    """Copy one node of the trace before the call, with the call's stack trace and module."""
    with node.graph.inserting_before(node):
        copy = node.graph.node_copy(inner, copies.__getitem__)
    # Not the mark of ``torch.fx.wrap``, which has the printed graph wrap a global of the target's name.
    copy.meta = {key: value for key, value in node.meta.items() if key != "is_wrapped"}
    differentiated = any(tensor.requires_grad for tensor in tensors_in(value_of(node)))
    set_value(copy, map_tensors(on_tape, value_of(inner)) if differentiated else value_of(inner))
    return copy


def _copy_constant(inner: fx.Node, node: fx.Node) -> fx.Node:
    """Give the graph a tensor that the call makes from Python numbers."""
    copy = move_attribute(inner, node)
    copy.meta = {}
    set_value(copy, value_of(inner) if has_value(inner) else attribute_of(inner.graph.owning_module, str(inner.target)))
    return copy
