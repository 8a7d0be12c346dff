"""Decides what becomes of one call: which of its inputs are cast to which dtype, and by which rule. Changes nothing.

Outside regions a program was captured in float32, and its constants, branches and buffers were made for that. So each
value keeps its captured dtype, unless all that touches it is known not to care: see ``narrow_safe``. Inside regions
capture recorded what autocast gives; there a call that no list names runs in the dtypes that its inputs have.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx

from xpu_amp_dynamo.errors import BannedOpError
from xpu_amp_dynamo.lowering.captured.lower_body import calls_body
from xpu_amp_dynamo.lowering.captured.narrow_safe import may_read_narrow
from xpu_amp_dynamo.lowering.captured.wanted import wanted_dtype_of
from xpu_amp_dynamo.lowering.composites.layout_ops import only_lays_out
from xpu_amp_dynamo.lowering.composites.trace import trace_composite, trace_foreign
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.functorch_levels import is_level_call
from xpu_amp_dynamo.lowering.graph.node_kind import base_op_name, is_higher_order, op_name_of, source_place
from xpu_amp_dynamo.lowering.graph.values import has_value, storage_of, tensor_inputs, value_of
from xpu_amp_dynamo.lowering.graph.writes import is_called_in_place, mutated_inputs, writes_only_statistics
from xpu_amp_dynamo.policy.cast_rule import BY_INPUTS, Category


class Rule(enum.Enum):
    """Why a call gets the inputs that it gets."""

    CONTRACT = "it calls subgraphs or belongs to torch.func: its inputs have the dtypes of capture"
    BODY = "it runs a checkpointed graph, which takes the dtypes that its inputs have"
    LISTED = "the policy lists it"
    COMPOSITE = "the policy lists ops inside it"
    FOREIGN = "its own library has an autocast kernel for it"
    CAPTURED = "it is not listed and may care about dtypes: its inputs have those of capture"
    UNCHANGED = "it is not listed: its inputs stay as they are"
    INELIGIBLE = "the policy lists its op, but not a call like this: its inputs have the dtypes of capture"
    KEPT_FLOAT32 = "it is inside a module that is kept in float32: its inputs are float32"
    WRITES = "it writes to memory: what it reads has the dtype of that"


@dataclass(frozen=True)
class Decision:
    """What becomes of a call.

    Args:
        rule: why.
        casts: the dtype that inputs are to have, where it may be another than they have.
        category: what the policy does with the call, if it lists it.
        copies: inputs to copy before the call, where eager code would have cast.
        traced: the ops that the call is to be replaced by.
    """

    rule: Rule
    casts: Mapping[fx.Node, torch.dtype] = field(default_factory=dict)
    category: Category | None = None
    copies: Sequence[fx.Node] = ()
    traced: fx.GraphModule | None = None


def decide(node: fx.Node, context: LoweringContext, last_writes: Mapping[int | None, fx.Node]) -> Decision:
    """Return what becomes of a call.

    Args:
        node: a call; those before it in the graph are lowered.
        context: the lowering in hand.
        last_writes: the last call of the graph that writes to a storage.

    Raises:
        BannedOpError: the policy bans the call.
    """
    if calls_body(node, context):
        return Decision(Rule.BODY)
    if is_higher_order(node) or is_level_call(node):
        return Decision(Rule.CONTRACT, context.recorded_dtypes(node))
    written = mutated_inputs(node)
    if context.states[node].is_kept_float32 and (not written or writes_only_statistics(node)):
        return _decide_kept(node, written, context, last_writes)
    category = _category(node, context)
    inside = _decide_by_contents(node, context) if category is None and not written else None
    if inside is not None:
        return inside
    if follows_autocast(node, context):
        if category is None:
            return _decide_ineligible(node, written, context)
        return _decide_by_list(node, written, category, context, last_writes)
    may_differ = context.reads_as_captured(node) or _may_read_narrow(node, written, context)
    # What goes by its inputs goes by captured dtypes: an op may have no kernel for what all its inputs were lowered to,
    # and the sums of a norm keep bits.
    if category is not None and (may_differ or category not in BY_INPUTS):
        return _decide_by_list(node, written, category, context, last_writes)
    return Decision(Rule.UNCHANGED) if may_differ else Decision(Rule.CAPTURED, context.recorded_dtypes(node))


def follows_autocast(node: fx.Node, context: LoweringContext) -> bool:
    """Tell whether the dtypes that capture recorded for a call, if any, are those of autocast and no contract."""
    return context.states[node].in_region or not has_value(node)


def _category(node: fx.Node, context: LoweringContext) -> Category | None:
    """Return what the policy does with a node in its state."""
    name = op_name_of(node)
    if name is None or is_called_in_place(node) or not context.states[node].enabled:
        return None
    return context.policy.categories.get(name)


def _decide_by_contents(node: fx.Node, context: LoweringContext) -> Decision | None:
    """Look inside a call that is not listed for ops that the policy casts."""
    state = context.states[node]
    if not state.enabled:
        return None
    foreign = trace_foreign(node, context, state)
    if foreign is not None:
        return Decision(Rule.FOREIGN, traced=foreign)
    traced = trace_composite(node, context, state, with_casts=follows_autocast(node, context))
    return None if traced is None else Decision(Rule.COMPOSITE, traced=traced)


def _decide_kept(
    node: fx.Node, written: list[fx.Node], context: LoweringContext, last_writes: Mapping[int | None, fx.Node]
) -> Decision:
    """Cast all inputs to float32, also what holds a dtype of capture inside the module; but not in front of a write.

    A view of a cast would take the write away from the memory.
    """
    read = [n for n in node.all_input_nodes if context.holds_tensor_on_device(n) and n not in written]
    if only_lays_out(op_name_of(node)):
        read = [n for n in read if not _is_written_behind(n, node, context, last_writes)]
    return Decision(Rule.KEPT_FLOAT32, dict.fromkeys(read, torch.float32))


def _may_read_narrow(node: fx.Node, written: list[fx.Node], context: LoweringContext) -> bool:
    """Tell whether a call that is not listed may read values that have other dtypes than captured."""
    harmless = not written or writes_only_statistics(node)
    return harmless and context.states[node].enabled and may_read_narrow(node, context)


def _decide_by_list(
    node: fx.Node,
    written: list[fx.Node],
    category: Category,
    context: LoweringContext,
    last_writes: Mapping[int | None, fx.Node],
) -> Decision:
    """Cast the inputs of a call that the policy lists."""
    inputs = [n for n in node.all_input_nodes if context.holds_tensor_on_device(n)]
    if category is Category.BANNED and inputs:
        raise BannedOpError(str(op_name_of(node)), source_place(node))
    wanted = wanted_dtype_of(node, category, context)
    if wanted is None:
        return Decision(Rule.LISTED, category=category)
    read = [n for n in inputs if n not in written]
    copies = _written_later(node, read, wanted, context, last_writes)
    return Decision(Rule.LISTED, dict.fromkeys(read, wanted), category, copies)


def _written_later(
    node: fx.Node,
    inputs: list[fx.Node],
    wanted: torch.dtype,
    context: LoweringContext,
    last_writes: Mapping[int | None, fx.Node],
) -> list[fx.Node]:
    """List the inputs that eager code would have cast, where backward needs them as they are now."""
    if not context.states[node].grad_enabled or not any(value_of(n).requires_grad for n in inputs):
        return []
    return [
        n
        for n in inputs
        if value_of(n).dtype is wanted
        and context.recorded_dtype(n) is not wanted
        and _is_written_behind(n, node, context, last_writes)
    ]


def _is_written_behind(
    value: fx.Node, node: fx.Node, context: LoweringContext, last_writes: Mapping[int | None, fx.Node]
) -> bool:
    """Tell whether the memory of a value is written to behind a node."""
    return node < last_writes.get(storage_of(context.recorded.get(value, value_of(value))), node)


def _decide_ineligible(node: fx.Node, written: list[fx.Node], context: LoweringContext) -> Decision:
    """Let a listed op that is not eligible here, a mutation or one in a disabled region, run as captured.

    Many of these refuse mixed dtypes only when they run for real, so this does not wait for a refusal.
    """
    if context.policy.categories.get(base_op_name(node)) is None:
        return Decision(Rule.UNCHANGED)
    if all(map(context.is_as_recorded, written)):
        read = {n: dtype for n, dtype in context.recorded_dtypes(node).items() if n not in written}
        return Decision(Rule.INELIGIBLE, read)
    return decide_by_memory(node, written)


def decide_by_memory(node: fx.Node, written: list[fx.Node]) -> Decision:
    """Cast what a mutation reads to the dtype of what it writes to."""
    dtype = value_of(written[0]).dtype
    return Decision(Rule.WRITES, {n: dtype for n in tensor_inputs(node) if n not in written})
