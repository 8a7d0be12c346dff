"""Lowers the graph of a checkpointed block where its call stands, with the dtypes that its inputs have by then.

before:  y = tag_activation_checkpoint(body, x)          # x: float32, recorded as bfloat16; body: relu(x)
after:   the same, with y: float32

Other subgraphs get the dtypes of capture. Where modules are kept in one precision inside a region, those are no longer
what eager code gives; and such a call only runs its graph, which may have any dtypes.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.node_kind import subgraphs_of
from xpu_amp_dynamo.lowering.graph.values import set_value, value_of
from xpu_amp_dynamo.lowering.graph.writes import mutated_inputs


def calls_body(node: fx.Node, context: LoweringContext) -> bool:
    """Tell whether a node runs a graph of its own that may get other dtypes than captured."""
    checkpointed = node.target is torch.ops.higher_order.tag_activation_checkpoint
    if not checkpointed or not context.modules.patterns or not context.states[node].captured.in_region:
        return False
    ((getter, _),) = subgraphs_of(node)
    return len(getter.users) == 1 and not mutated_inputs(node)


def lower_body(node: fx.Node, context: LoweringContext) -> None:
    """Lower the graph that a node runs, and give the node the value that this returns."""
    ((getter, body),) = subgraphs_of(node)
    operands = tuple(value_of(n) if isinstance(n, fx.Node) else n for n in node.args if n is not getter)
    inside = context.for_subgraph(context.states[node].captured, context.modules.calls_around(node))
    context.lower_inside(body, dataclasses.replace(inside, preserve_output_dtype=False, inputs_now=operands))
    results = fx.map_arg(body.graph.output_node().args[0], value_of)
    set_value(node, results)
