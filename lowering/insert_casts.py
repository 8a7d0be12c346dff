"""Lowers the policy: every listed op gets its inputs in the dtype that the cast rule wants.

before:  y = linear(x, w, b)                                               # float32[8, 64]
after:   y = linear(x.to(bfloat16), w.to(bfloat16), b.to(bfloat16))        # bfloat16[8, 64]

The values of all nodes downstream are recomputed by running them on fake tensors. Left alone: mutations and
``out=`` calls, float64, integer and complex inputs, tensors of other device types, nodes of disabled regions.
An op that refuses the mixture of dtypes that lowering brought about, though it ran on the recorded ones, gets
the recorded dtypes back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.autograd import grad_mode

from xpu_amp_dynamo.cast_rule import ELIGIBLE_DTYPES, Category, cast_rule
from xpu_amp_dynamo.errors import BannedOpError, LoweringError
from xpu_amp_dynamo.lowering.casting import Caster, insert_copy, is_pin, settle_pin
from xpu_amp_dynamo.lowering.context import LoweringContext
from xpu_amp_dynamo.lowering.fake_run import run_mutation, run_node, with_recorded_sizes
from xpu_amp_dynamo.lowering.functorch_levels import inside_level, is_level_call, leave_open_levels
from xpu_amp_dynamo.lowering.inline_graph import inline_graph
from xpu_amp_dynamo.lowering.layout_ops import LAYOUT_OPS
from xpu_amp_dynamo.lowering.node_kind import (
    CALLS,
    base_op_name,
    is_higher_order,
    mutated_inputs,
    op_name_of,
    written_storages,
)
from xpu_amp_dynamo.lowering.trace_composite import trace_composite
from xpu_amp_dynamo.lowering.values import (
    dtypes_in,
    has_value,
    set_value,
    storage_of,
    tensor_inputs,
    tensors_in,
    value_of,
)

_GRAD_MODE_CALLS = (torch._C._set_grad_enabled, torch.set_grad_enabled)
_HOOK_CALLS = (torch._C._autograd._saved_tensors_hooks_disable, torch._C._autograd._saved_tensors_hooks_enable)
_INFERENCE_MODE_CALLS = (grad_mode._enter_inference_mode, grad_mode._exit_inference_mode)


def insert_casts(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Cast the inputs of listed ops, here and inside composites; tell whether anything was cast."""
    lowering = _CastInsertion(context, {s: node for node in gm.graph.nodes for s in written_storages([node])})
    with leave_open_levels():
        for node in list(gm.graph.nodes):
            if node.op in CALLS:
                lowering.lower(node)
    return lowering.changed


class _CastInsertion:
    """One walk over a graph, in program order."""

    def __init__(self, context: LoweringContext, last_writes: dict[int | None, fx.Node]) -> None:
        self.context = context
        self.last_writes = last_writes
        self.caster = Caster(torch.is_grad_enabled())
        self.changed = False

    def lower(self, node: fx.Node) -> None:
        """Cast the inputs of one call as its state says, and recompute its value."""
        if node.target in _GRAD_MODE_CALLS:
            self.caster.grad_enabled = bool(node.args[0])
        if node.target in _INFERENCE_MODE_CALLS:
            self.caster.forget_all()
        if node.target in _HOOK_CALLS:
            return
        if is_pin(node):
            self.changed |= settle_pin(node)
        elif is_higher_order(node):
            self._restore_inputs(node)
        elif is_level_call(node):
            self._restore_inputs(node)
            set_value(node, run_node(node))
        elif not self._lower_composite(node):
            self._lower_listed(node)
            self._recompute(node)
        self.caster.forget(mutated_inputs(node))

    def _lower_listed(self, node: fx.Node) -> None:
        """Cast the inputs of a call that the policy lists."""
        inputs = [n for n in tensor_inputs(node) if self.context.on_device(value_of(n))]
        name, category = str(op_name_of(node)), self._category(node)
        if category is Category.BANNED and inputs:
            raise BannedOpError(name, _where(node))
        if inputs:
            self.context.report.ops[category.value if category else "untouched"] += 1
        if category is None:
            return self._keep_ineligible(node)
        dtypes = [value_of(n).dtype for n in inputs]
        dtype = self.context.states[node].dtype
        wanted = cast_rule(name, dtypes, self.context.policy, dtype)
        if wanted is not None:
            self._copy_if_written_later(node, inputs, wanted)
            self._cast_inputs(node, dict.fromkeys(inputs, wanted))
        return None

    def _copy_if_written_later(self, node: fx.Node, inputs: list[fx.Node], wanted: torch.dtype) -> None:
        """Copy inputs that eager code would have cast, where backward needs them as they are now."""
        differentiated = self.caster.grad_enabled and any(value_of(n).requires_grad for n in inputs)
        for n in inputs if differentiated else ():
            cast_at_capture = value_of(n).dtype is wanted and self._recorded_dtype(n) is not wanted
            last_write = self.last_writes.get(storage_of(self.context.recorded.get(n, value_of(n))), node)
            if cast_at_capture and node < last_write:
                node.replace_input_with(n, insert_copy(n, node))

    def _category(self, node: fx.Node) -> Category | None:
        """Return what the policy does with a node in its state."""
        name = op_name_of(node)
        if name is None or mutated_inputs(node) or not self.context.states[node].enabled:
            return None
        return self.context.policy.category(name)

    def _keep_ineligible(self, node: fx.Node) -> None:
        """Let a listed op that is not eligible here, a mutation or one in a disabled region, run as captured.

        Many of these refuse mixed dtypes only when they run for real, so this does not wait for a refusal.
        """
        written = mutated_inputs(node)
        if self.context.policy.category(base_op_name(node)) is None:
            return
        if all(map(self._as_recorded, written)):
            self._cast_inputs(node, {n: self._recorded_dtype(n) for n in tensor_inputs(node) if n not in written})
        else:
            self._match_written(node)

    def _lower_composite(self, node: fx.Node) -> bool:
        """Replace an unlisted call by the ops inside it if the policy casts any of those; tell whether it did."""
        state = self.context.states[node]
        if not state.enabled or self._category(node) is not None or mutated_inputs(node):
            return False
        try:
            traced = trace_composite(node, self.context, state)
        except RuntimeError as error:
            raise LoweringError(f"cannot look inside {node.format_node()}: {error}{_where(node)}") from error
        if traced is None:
            return False
        inline_graph(node, traced, self.context, self.caster)
        self.context.report.ops["composite"] += 1
        self.changed = True
        return True

    def _recompute(self, node: fx.Node) -> None:
        """Bring a call's value up to date with its inputs."""
        unchanged = has_value(node) and all(map(self._as_recorded, node.all_input_nodes))
        if unchanged and not inside_level() and not self._may_have_been_cast(node):
            return
        try:
            set_value(node, self._run(node))
        except RuntimeError as error:
            self._match_dtypes(node, error)
        self.context.recorded.setdefault(node, value_of(node))

    def _may_have_been_cast(self, node: fx.Node) -> bool:
        """Tell whether the autocast that was on at capture, which may follow other lists, can have cast inputs."""
        return self.context.states[node].enabled and op_name_of(node) not in LAYOUT_OPS

    def _run(self, node: fx.Node) -> Any:
        if mutated_inputs(node):
            return run_mutation(node)
        if not has_value(node):
            return run_node(node)
        recorded = value_of(node)
        if not tensors_in(recorded):
            return recorded
        return with_recorded_sizes(run_node(node), recorded)

    def _match_dtypes(self, node: fx.Node, error: Exception) -> None:
        """Give an op that refuses its new inputs the dtypes it was captured with, a mutation those it writes to."""
        if mutated_inputs(node):
            self._match_written(node)
        else:
            self._restore_inputs(node)
        try:
            set_value(node, self._run(node))
        except RuntimeError as again:
            raise LoweringError(f"cannot lower {node.format_node()}: {error}{_where(node)}") from again

    def _match_written(self, node: fx.Node) -> None:
        """Cast the inputs that a mutation reads to the dtype of what it writes to."""
        written = mutated_inputs(node)
        dtype = value_of(written[0]).dtype
        self._cast_inputs(node, {n: dtype for n in tensor_inputs(node) if n not in written})

    def _restore_inputs(self, node: fx.Node) -> None:
        """Give a call the dtypes it was captured with; for a call of subgraphs they are the contract."""
        self._cast_inputs(node, {n: self._recorded_dtype(n) for n in tensor_inputs(node)})

    def _cast_inputs(self, node: fx.Node, wanted: dict[fx.Node, torch.dtype]) -> None:
        """Cast those inputs of a call that have another eligible dtype than the wanted one, each use on its own."""
        state = self.context.states[node]

        def cast(argument: fx.Node) -> fx.Node:
            dtype, own = wanted.get(argument), value_of(argument)
            if dtype is None or own.dtype is dtype or own.dtype not in ELIGIBLE_DTYPES:
                return argument
            self.changed = True
            return self.caster.cast(argument, dtype, node, state)

        node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), cast)

    def _as_recorded(self, node: fx.Node) -> bool:
        """Tell whether a node's value still has the dtypes that capture recorded."""
        recorded = self.context.recorded.get(node)
        return node in self.context.recorded and dtypes_in(recorded) == dtypes_in(value_of(node))

    def _recorded_dtype(self, node: fx.Node) -> torch.dtype:
        """Return the dtype that capture recorded for a node; for a cast of ours, that of its source."""
        while node not in self.context.recorded:
            node = node.all_input_nodes[0]
        return self.context.recorded[node].dtype


def _where(node: fx.Node) -> str:
    """Return where in the user's code a node comes from."""
    trace = node.meta.get("stack_trace")
    return f"\n{trace.rstrip()}" if trace else ""
