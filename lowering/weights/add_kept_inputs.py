"""Adds inputs for casts of weights to a graph with a backward, so that its caller can keep their results.

before:  forward(x, w):              y = linear(x.to(bfloat16), w.to(bfloat16))
after:   forward(x, w, w_bfloat16):  y = linear(x.to(bfloat16), w.to(bfloat16))      # w_bfloat16 is unused

The casts stay, since gradients go through them. What AOTAutograd makes of the graph then reads the inputs in their
place, see ``read_kept_casts``. Casts inside subgraphs count, as in checkpointed blocks. Values do not change.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.casting import is_inserted_cast
from xpu_amp_dynamo.lowering.graph.node_kind import subgraphs_of
from xpu_amp_dynamo.lowering.graph.values import value_of
from xpu_amp_dynamo.lowering.weights.lift_casts import add_input
from xpu_amp_dynamo.lowering.weights.plan import KeptCast, WeightPlan, placeholders


def add_kept_inputs(gm: fx.GraphModule, plan: WeightPlan) -> bool:
    """Add an input for each weight and dtype that it is cast to; tell whether there were any.

    Args:
        gm: a lowered graph from Dynamo. Edited in place.
        plan: its weights; the casts that its caller hands over are added to it.
    """
    last = placeholders(gm)[-1]
    for weight, position in plan.weights.items():
        for dtype, cast in {value.dtype: value for value in _casts_of(weight)}.items():
            kept = KeptCast(position, dtype, torch.preserve_format)
            last = add_input(gm, kept, cast, last)
            plan.kept.append(kept)
    return bool(plan.kept)


def _casts_of(weight: fx.Node) -> Iterator[torch.Tensor]:
    """Yield the inserted casts of a weight, in the graphs too that it is handed to."""
    for user in weight.users:
        if is_inserted_cast(user):
            yield value_of(user)
        for _, subgraph in subgraphs_of(user):
            inputs = placeholders(subgraph)
            operands = user.args[len(user.args) - len(inputs) :]
            for inner, operand in zip(inputs, operands, strict=False):
                if operand is weight:
                    yield from _casts_of(inner)
