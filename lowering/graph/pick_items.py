"""Takes a sequence of tensors apart that a call reads as one value, so that each of them can be cast."""

from __future__ import annotations

import operator

from torch import fx

from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.values import set_value, value_of


def pick_items(sequence: fx.Node, user: fx.Node, context: LoweringContext) -> None:
    """Give a call each tensor of a sequence by itself, in a list.

    Args:
        sequence: a node that holds several tensors.
        user: the call that reads them as one value.
        context: the lowering in hand; it knows the new nodes afterwards.
    """
    items = []
    for position, value in enumerate(value_of(sequence)):
        with user.graph.inserting_before(user):
            items.append(user.graph.call_function(operator.getitem, (sequence, position)))
        set_value(items[-1], value)
        context.recorded[items[-1]] = context.recorded[sequence][position]
        context.states[items[-1]] = context.states[user]
    replaced = fx.node.map_aggregate((user.args, user.kwargs), lambda a: items if a is sequence else a)
    user.args, user.kwargs = replaced
