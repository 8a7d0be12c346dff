"""Checks a lowered graph against what the lowering promises. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from xpu_amp_dynamo.errors import LoweringError
from xpu_amp_dynamo.lowering.captured.find_regions import find_regions
from xpu_amp_dynamo.lowering.graph.casting import is_inserted_cast
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS, is_higher_order, op_name_of
from xpu_amp_dynamo.lowering.graph.values import tensor_inputs, value_of
from xpu_amp_dynamo.lowering.graph.writes import is_called_in_place, mutated_inputs
from xpu_amp_dynamo.policy.cast_rule import needs_cast, wanted_dtype

Check = Callable[[fx.Node, LoweringContext], str | None]


def verify(gm: fx.GraphModule, context: LoweringContext) -> None:
    """Check that a graph is well formed and fully lowered.

    Raises:
        LoweringError: a region is left, a listed op has an input of another dtype than the rule wants, a cast
            does nothing, or an output has another dtype than recorded. The message names the node.
    """
    gm.graph.lint()
    left = find_regions(gm.graph, context.initial_state, context.device_type).markers
    if left:
        raise LoweringError(f"autocast regions are left in the lowered graph: {left}")
    for node in gm.graph.nodes:
        for check in (_check_listed_op, _check_cast, _check_output):
            problem = check(node, context)
            if problem:
                raise LoweringError(f"{problem} at {node.format_node()}; this is a bug of xpu_amp_dynamo")


def _check_listed_op(node: fx.Node, context: LoweringContext) -> str | None:
    """Say which input of a listed op has the wrong dtype."""
    state = context.states.get(node)
    name = op_name_of(node)
    if state is None or not state.enabled or name is None or is_called_in_place(node) or is_higher_order(node):
        return None
    if node in context.refused:
        return None
    inputs, written = [n for n in tensor_inputs(node) if context.on_device(value_of(n))], mutated_inputs(node)
    wanted = wanted_dtype(context.policy.category(name), [value_of(n).dtype for n in inputs], state.dtype)
    values = [value_of(n) for n in inputs if n not in written]
    wrong = [v.dtype for v in values if wanted and needs_cast(v, wanted)]
    return f"{name} wants {wanted} and has {wrong}" if wrong else None


def _check_cast(node: fx.Node, context: LoweringContext) -> str | None:
    """Say which cast does nothing."""
    if not is_inserted_cast(node):
        return None
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return "cast to the dtype it comes from" if value_of(source).dtype is value_of(node).dtype else None


def _check_output(node: fx.Node, context: LoweringContext) -> str | None:
    """Say which output lost its recorded dtype."""
    if node.op != "output" or not context.preserve_output_dtype:
        return None
    for output in node.all_input_nodes:
        recorded, value = context.recorded.get(output), value_of(output)
        if isinstance(recorded, torch.Tensor) and recorded.dtype is not value.dtype:
            return f"output {output} was recorded as {recorded.dtype} and is {value.dtype}"
    return None


def count_casts(gm: fx.GraphModule) -> int:
    """Count the casts that the lowering put into a graph."""
    return sum(is_inserted_cast(node) for node in gm.graph.nodes if node.op in CALLS)
