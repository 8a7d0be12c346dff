"""Casts the inputs and results of single calls: to a wanted dtype, or back to the one that capture recorded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from xpu_amp_dynamo.compat.functorch import is_wrapped
from xpu_amp_dynamo.lowering.graph.casting import Caster, cast_behind
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.pick_items import pick_items
from xpu_amp_dynamo.lowering.graph.values import value_of
from xpu_amp_dynamo.policy.cast_rule import needs_cast


class InputCasts:
    """Gives calls of one graph other inputs.

    Args:
        context: the lowering in hand.
        caster: makes the casts, and shares them.

    ``changed`` tells whether any call got another input.
    """

    def __init__(self, context: LoweringContext, caster: Caster) -> None:
        self.context = context
        self.caster = caster
        self.changed = False

    def cast_inputs(self, node: fx.Node, wanted: Mapping[fx.Node, torch.dtype]) -> None:
        """Cast those inputs of a call that have another eligible dtype than the wanted one, each use on its own."""
        state = self.context.states[node]

        def cast(argument: fx.Node) -> fx.Node:
            dtype = wanted.get(argument)
            if dtype is None or not needs_cast(value_of(argument), dtype):
                return argument
            self.changed = True
            return self.caster.cast(argument, dtype, node, state)

        node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), cast)

    def restore_inputs(self, node: fx.Node) -> None:
        """Give a call the dtypes it was captured with; for a call of subgraphs they are the contract."""
        for n in node.all_input_nodes:
            if isinstance(value_of(n), (tuple, list)) and not self.context.is_as_recorded(n):
                pick_items(n, node, self.context)
        self.cast_inputs(node, self.context.recorded_dtypes(node))

    def keep_wrapped(self, node: fx.Node) -> None:
        """Give what a call inside a level of ``torch.func`` returns its captured dtype, while the level lasts."""
        recorded, value = self.context.recorded.get(node), value_of(node)
        if isinstance(recorded, torch.Tensor) and is_wrapped(recorded) and value.dtype is not recorded.dtype:
            cast = cast_behind(node, recorded)
            self.context.recorded[cast] = recorded
