"""Puts the nodes of a traced graph in the place of the one call that was traced."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from xpu_amp_dynamo.lowering.casting import Caster
from xpu_amp_dynamo.lowering.context import LoweringContext
from xpu_amp_dynamo.lowering.node_kind import attribute_of
from xpu_amp_dynamo.lowering.trace_composite import is_traced_cast
from xpu_amp_dynamo.lowering.values import has_value, set_value, value_of


def inline_graph(node: fx.Node, traced: fx.GraphModule, context: LoweringContext, caster: Caster) -> None:
    """Replace a call by the ops that a trace of it found.

    Args:
        node: the call; it is erased.
        traced: the graph of its contents, with ``node.all_input_nodes`` as placeholders in this order.
        context: the lowering in hand; what it recorded for the call it records for the replacement.
        caster: makes the casts, so that they are shared with those outside.
    """
    copies = dict(zip(traced.graph.find_nodes(op="placeholder"), node.all_input_nodes, strict=True))
    for inner in traced.graph.nodes:
        if inner.op == "placeholder":
            continue
        if inner.op == "output":
            result = fx.map_arg(inner.args[0], copies.__getitem__)
        elif is_traced_cast(inner):
            source = copies[inner.args[0]]
            copies[inner] = caster.cast(source, inner.kwargs["dtype"], node, context.states[node])
        else:
            copies[inner] = _copy_constant(inner, node) if inner.op == "get_attr" else _copy(inner, node, copies)
            context.states[copies[inner]] = context.states[node]
    _replace(node, result, context)


def _copy(inner: fx.Node, node: fx.Node, copies: dict[fx.Node, fx.Node]) -> fx.Node:
    """Copy one node of the trace before the call, with the call's stack trace and module."""
    with node.graph.inserting_before(node):
        copy = node.graph.node_copy(inner, copies.__getitem__)
    copy.meta = dict(node.meta)
    set_value(copy, value_of(inner))
    return copy


def _copy_constant(inner: fx.Node, node: fx.Node) -> fx.Node:
    """Give the graph a tensor that the call makes from Python numbers, and fetch it before the call."""
    gm, traced = node.graph.owning_module, inner.graph.owning_module
    assert gm is not None
    assert traced is not None
    name = f"_traced_constant_{sum(key.startswith('_traced_constant_') for key in vars(gm))}"
    constant = attribute_of(traced, str(inner.target))
    setattr(gm, name, constant)
    with node.graph.inserting_before(node):
        copy = node.graph.get_attr(name)
    set_value(copy, value_of(inner) if has_value(inner) else constant)
    return copy


def _replace(node: fx.Node, result: Any, context: LoweringContext) -> None:
    """Let the users of a call use the traced result, item by item where the call returned several tensors."""
    if isinstance(result, fx.Node):
        context.recorded[result] = context.recorded[node]
        node.replace_all_uses_with(result)
    for user in list(node.users):
        if user.target is operator.getitem:
            item = result[user.args[1]]
            context.recorded[item] = context.recorded[user]
            user.replace_all_uses_with(item)
            user.graph.erase_node(user)
        else:
            user.args, user.kwargs = fx.node.map_aggregate(
                (user.args, user.kwargs), lambda a: result if a is node else a
            )
    node.graph.erase_node(node)
