"""Puts the nodes of a traced graph in the place of the one call that was traced."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.utils import _pytree as pytree

from xpu_amp_dynamo.lowering.graph.casting import Caster, is_traced_cast
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.node_kind import attribute_of
from xpu_amp_dynamo.lowering.graph.values import has_value, set_value, tensors_in, value_of


class Inlined(NamedTuple):
    """What replaced a call: the copied nodes in order, the nodes that hold its results, and the nodes that are gone."""

    nodes: list[fx.Node]
    results: list[fx.Node]
    erased: list[fx.Node]


def inline_graph(node: fx.Node, traced: fx.GraphModule, context: LoweringContext, caster: Caster) -> Inlined:
    """Replace a call by the ops that a trace of it found.

    Args:
        node: the call; it is erased, with the nodes that pick its results.
        traced: the graph of its contents, with ``node.all_input_nodes`` as placeholders in this order.
        context: the lowering in hand; what it recorded for the call it records for the replacement.
        caster: makes the casts, so that they are shared with those outside.
    """
    copies = dict(zip(traced.graph.find_nodes(op="placeholder"), node.all_input_nodes, strict=True))
    nodes: list[fx.Node] = []
    for inner in traced.graph.nodes:
        if inner.op == "placeholder":
            continue
        if inner.op == "output":
            result = fx.map_arg(inner.args[0], copies.__getitem__)
        elif is_traced_cast(inner):
            source = copies[inner.args[0]]
            copies[inner] = caster.cast(source, inner.kwargs["dtype"], node, context.states[node])
        else:
            constant = inner.op == "get_attr"
            copies[inner] = _copy_constant(inner, node, context) if constant else _copy(inner, node, copies)
            context.states[copies[inner]] = context.states[node]
            nodes.append(copies[inner])
    return Inlined(nodes, *_replace(node, result, context))


def _copy(inner: fx.Node, node: fx.Node, copies: dict[fx.Node, fx.Node]) -> fx.Node:
    """Copy one node of the trace before the call, with the call's stack trace and module."""
    with node.graph.inserting_before(node):
        copy = node.graph.node_copy(inner, copies.__getitem__)
    copy.meta = dict(node.meta)
    differentiated = any(tensor.requires_grad for tensor in tensors_in(value_of(node)))
    set_value(
        copy, pytree.tree_map_only(torch.Tensor, _on_tape, value_of(inner)) if differentiated else value_of(inner)
    )
    return copy


def _on_tape(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of a trace, which forgets that, as one that a differentiated call computed."""
    return tensor.detach().requires_grad_().view_as(tensor) if tensor.is_floating_point() else tensor


def _copy_constant(inner: fx.Node, node: fx.Node, context: LoweringContext) -> fx.Node:
    """Give the graph a tensor that the call makes from Python numbers, and fetch it before the call."""
    gm, traced = node.graph.owning_module, inner.graph.owning_module
    assert gm is not None
    assert traced is not None
    name = f"_traced_constant_{context.constants}"
    context.constants += 1
    constant = attribute_of(traced, str(inner.target))
    setattr(gm, name, constant)
    with node.graph.inserting_before(node):
        copy = node.graph.get_attr(name)
    set_value(copy, value_of(inner) if has_value(inner) else constant)
    return copy


def _replace(node: fx.Node, result: Any, context: LoweringContext) -> tuple[list[fx.Node], list[fx.Node]]:
    """Let the users of a call use the traced result, item by item where the call returned several tensors.

    Return the nodes of the results, and the nodes that were erased.
    """
    results: list[fx.Node] = []
    erased = [node]
    if isinstance(result, fx.Node):
        _take_over(node, result, context, results)
        node.replace_all_uses_with(result)
    for user in list(node.users):
        if user.target is operator.getitem:
            item = result[user.args[1]]
            if isinstance(item, fx.Node):
                _take_over(user, item, context, results)
            # An item may be no node: attention without weights returns None there.
            for reader in list(user.users):
                _substitute(reader, user, item)
            user.graph.erase_node(user)
            erased.append(user)
        else:
            _substitute(user, node, result)
    node.graph.erase_node(node)
    return results, erased


def _substitute(user: fx.Node, old: fx.Node, new: Any) -> None:
    """Give a call another argument in the place of a node."""
    user.args, user.kwargs = fx.node.map_aggregate((user.args, user.kwargs), lambda a: new if a is old else a)


def _take_over(node: fx.Node, result: fx.Node, context: LoweringContext, results: list[fx.Node]) -> None:
    """Record for a result what was recorded for the node that it replaces."""
    if node in context.recorded:
        context.recorded.setdefault(result, context.recorded[node])
    results.append(result)
