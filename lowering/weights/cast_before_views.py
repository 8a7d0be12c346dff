"""Casts weights before views of them are taken, so that each cast is of a whole weight and can be kept.

before:  v = w.t(); y = x.to(bfloat16) @ v.to(bfloat16)
after:   c = w.to(bfloat16); v = c.t(); y = x.to(bfloat16) @ v

For graphs without a backward. Left alone: views of anything but the weights given, and ``as_strided``, which sees
memory and not the tensor. Values do not change, since casts and views commute.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.casting import insert_cast, is_inserted_cast
from xpu_amp_dynamo.lowering.graph.fake_run import call_fake
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS, is_higher_order, op_name_of
from xpu_amp_dynamo.lowering.graph.values import dtypes_in, has_value, set_value, storage_of, tensors_in, value_of
from xpu_amp_dynamo.lowering.graph.writes import mutated_inputs
from xpu_amp_dynamo.lowering.weights.plan import WeightPlan

# Nodes and dtypes, each with the node that holds the same in that dtype.
_Counterparts = dict[tuple[fx.Node, torch.dtype], fx.Node]


def cast_before_views(gm: fx.GraphModule, plan: WeightPlan) -> bool:
    """Move the casts of views of weights to the weights; tell whether there were any.

    Args:
        gm: a lowered graph. Edited in place.
        plan: its weights, none of which it writes to.
    """
    counterparts: _Counterparts = {}
    changed = False
    for cast in list(filter(is_inserted_cast, gm.graph.nodes)):
        views = _views_between(plan.weights, cast)
        values = _values_in(value_of(cast).dtype, views) if len(views) > 1 else []
        if values:
            _recast(cast, views, values, counterparts)
            changed = True
    return changed


def _views_between(weights: Collection[fx.Node], cast: fx.Node) -> list[fx.Node]:
    """List a weight and the views of it, each of the one before, of which a cast casts the last; empty if none."""
    source = cast.args[0]
    found: list[fx.Node] = []
    while isinstance(source, fx.Node):
        found.insert(0, source)
        if source in weights:
            return found
        source = _viewed_by(source)
    return []


def _viewed_by(node: fx.Node) -> fx.Node | None:
    """Return what a call returns views of, and nothing else; None if it does not."""
    sources = [n for n in node.all_input_nodes if has_value(n) and tensors_in(value_of(n))]
    if node.op not in CALLS or not has_value(node) or len(sources) != 1:
        return None
    if op_name_of(node) == "as_strided" or is_higher_order(node) or mutated_inputs(node):
        return None
    value, source = value_of(node), value_of(sources[0])
    same_memory = set(map(storage_of, tensors_in(value))) == set(map(storage_of, tensors_in(source))) - {None}
    return sources[0] if same_memory and set(dtypes_in(value)) == set(dtypes_in(source)) else None


def _values_in(dtype: torch.dtype, views: list[fx.Node]) -> list[Any]:
    """Return the values that a weight and views of it have in a dtype; empty if that is not all that changes.

    A conversion to float32, for one, returns a float32 weight as it is, but not its cast.
    """
    values = [value_of(views[0]).to(dtype)]
    for source, view in itertools.pairwise(views):
        values.append(_value_of_view(view, source, values[-1]))
        if set(dtypes_in(values[-1])) != {dtype}:
            return []
    return values


def _value_of_view(view: fx.Node, source: fx.Node, value: Any) -> Any:
    """Return what a call gives if its source has another value."""
    return call_fake(view, *fx.map_arg((view.args, view.kwargs), lambda n: value if n is source else value_of(n)))


def _recast(cast: fx.Node, views: list[fx.Node], values: list[Any], counterparts: _Counterparts) -> None:
    """Take views of the cast weight in place of the cast of a view."""
    dtype = value_of(cast).dtype
    if (views[0], dtype) not in counterparts:
        counterparts[views[0], dtype] = _cast_first(views[0], cast)
    for (source, view), value in zip(itertools.pairwise(views), values[1:], strict=True):
        if (view, dtype) not in counterparts:
            counterparts[view, dtype] = _copy(view, source, counterparts[source, dtype], value)
    cast.replace_all_uses_with(counterparts[views[-1], dtype])
    for node in (cast, *reversed(views[1:])):
        if not node.users:
            cast.graph.erase_node(node)


def _cast_first(weight: fx.Node, cast: fx.Node) -> fx.Node:
    """Cast a weight like one of its views, in front of all else."""
    new = insert_cast(weight, value_of(cast).dtype, cast)
    next(node for node in cast.graph.nodes if node.op != "placeholder").prepend(new)
    return new


def _copy(view: fx.Node, source: fx.Node, counterpart: fx.Node, value: Any) -> fx.Node:
    """Copy a view, taken of the counterpart of its source."""
    with view.graph.inserting_after(view):
        copy = view.graph.node_copy(view, lambda n: counterpart if n is source else n)
    set_value(copy, value)
    return copy
