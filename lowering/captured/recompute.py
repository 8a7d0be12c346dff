"""Brings the values of calls up to date with what their inputs have become, or gives the inputs their dtypes back."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.functorch import is_wrapped
from xpu_amp_dynamo.errors import LoweringError
from xpu_amp_dynamo.lowering.captured.decide import decide_by_memory
from xpu_amp_dynamo.lowering.captured.input_casts import InputCasts
from xpu_amp_dynamo.lowering.composites.layout_ops import only_lays_out
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.fake_run import REFUSALS, run_mutation, run_node, with_recorded_sizes
from xpu_amp_dynamo.lowering.graph.node_kind import op_name_of, source_place
from xpu_amp_dynamo.lowering.graph.values import (
    dtypes_in,
    has_value,
    on_tape,
    set_value,
    storages_in,
    tensors_in,
    value_of,
)
from xpu_amp_dynamo.lowering.graph.writes import mutated_inputs, writes_only_statistics


def recompute_captured(node: fx.Node, context: LoweringContext, inputs: InputCasts) -> None:
    """Bring the value of a call outside regions up to date with its inputs, or let it run as captured.

    Args:
        node: a call whose inputs may have other values than at capture.
        context: the lowering in hand.
        inputs: gives calls other inputs.
    """
    if context.reads_as_captured(node):
        return
    recorded = value_of(node)
    try:
        value = with_recorded_sizes(run_node(node), recorded) if tensors_in(recorded) else recorded
    except REFUSALS:
        inputs.restore_inputs(node)
        context.refused.add(node)
        return
    if _returns_input_anew(node, value, context):
        inputs.restore_inputs(node)
        return
    if dtypes_in(value) != dtypes_in(recorded):
        set_value(node, value)
        inputs.keep_wrapped(node)


def _returns_input_anew(node: fx.Node, value: Any, context: LoweringContext) -> bool:
    """Tell whether a call now returns memory of an input, where it made new memory at capture.

    So does a conversion to the dtype that its input has by now. Others would see writes to the one in the other.
    """
    recorded = {n: context.recorded.get(n, value_of(n)) for n in node.all_input_nodes}
    now = storages_in(list(map(value_of, recorded))) & storages_in(value)
    return bool(now) and not storages_in(list(recorded.values())) & storages_in(context.recorded.get(node))


def recompute_in_region(node: fx.Node, context: LoweringContext, inputs: InputCasts) -> None:
    """Bring the value of a call inside a region up to date with its inputs.

    Args:
        node: a call that was captured under autocast, or has no value yet.
        context: the lowering in hand.
        inputs: gives calls other inputs.

    Raises:
        LoweringError: the call refuses the dtypes that its inputs have, and those of capture too.
    """
    unchanged = has_value(node) and context.reads_as_captured(node)
    if unchanged and not _may_have_been_cast(node, context):
        return
    recorded = context.recorded.get(node)
    try:
        value = _differentiated_like(recorded, _run(node))
        if not isinstance(recorded, torch.Tensor) or not is_wrapped(recorded) or value.dtype is not recorded.dtype:
            set_value(node, value)
    except REFUSALS as error:
        _match_dtypes(node, context, inputs, error)
    context.recorded.setdefault(node, value_of(node))
    inputs.keep_wrapped(node)


def _may_have_been_cast(node: fx.Node, context: LoweringContext) -> bool:
    """Tell whether the autocast that was on at capture, which may follow other lists, can have cast inputs."""
    state = context.states[node]
    return state.is_kept_float32 or (state.enabled and not only_lays_out(op_name_of(node)))


def _run(node: fx.Node) -> Any:
    if mutated_inputs(node) and not writes_only_statistics(node):
        return run_mutation(node)
    if not has_value(node):
        return run_node(node)
    recorded = value_of(node)
    if not tensors_in(recorded):
        return recorded
    return with_recorded_sizes(run_node(node), recorded)


def _differentiated_like(recorded: Any, value: Any) -> Any:
    """Put a recomputed value on the tape where the recorded one is: writes that put it there are not run again."""
    tensors = isinstance(recorded, torch.Tensor) and isinstance(value, torch.Tensor)
    return on_tape(value) if tensors and recorded.requires_grad and not value.requires_grad else value


def _match_dtypes(node: fx.Node, context: LoweringContext, inputs: InputCasts, error: Exception) -> None:
    """Give an op that refuses its new inputs the dtypes it was captured with, a mutation those it writes to."""
    written = mutated_inputs(node)
    if written:
        inputs.cast_inputs(node, decide_by_memory(node, written).casts)
    else:
        inputs.restore_inputs(node)
    try:
        set_value(node, _run(node))
    except REFUSALS as again:
        if not has_value(node) or not context.reads_as_captured(node):
            raise LoweringError(f"cannot lower {node.format_node()}: {error}{source_place(node)}") from again
        context.refused.add(node)
