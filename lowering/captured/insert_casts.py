"""Lowers the policy: every listed op gets its inputs in the dtype that the cast rule wants.

before:  y = linear(x, w, b); z = svdvals(relu(y))                         # float32[8, 64]
after:   y = linear(x.to(bfloat16), w.to(bfloat16), b.to(bfloat16))        # bfloat16[8, 64]
         z = svdvals(relu(y).to(float32))                                  # as captured

Outside regions a program was captured in float32, and its constants, branches and buffers were made for that. So each
value keeps its captured dtype, unless all that touches it is known not to care: see ``narrow_safe``. Inside regions
capture recorded what autocast gives; there a call that no list names runs in the dtypes that its inputs have.

The values of all nodes downstream are recomputed by running them on fake tensors. Left alone: mutations and
``out=`` calls, float64, integer and complex inputs, tensors of other device types, nodes of disabled regions, and calls
that cannot be run or traced again. An op that refuses the dtypes that lowering brought about gets the recorded ones
back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx
from torch.autograd import grad_mode

from xpu_amp_dynamo.errors import BannedOpError, LoweringError
from xpu_amp_dynamo.lowering.captured.input_casts import InputCasts
from xpu_amp_dynamo.lowering.captured.narrow_safe import may_read_narrow
from xpu_amp_dynamo.lowering.captured.pin_captured_dtypes import is_pin, pin_memory, settle_pin, storages_written
from xpu_amp_dynamo.lowering.composites.layout_ops import LAYOUT_OPS
from xpu_amp_dynamo.lowering.composites.trace import trace_composite, trace_foreign
from xpu_amp_dynamo.lowering.graph.casting import Caster, insert_copy
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.fake_run import REFUSALS, run_mutation, run_node, with_recorded_sizes
from xpu_amp_dynamo.lowering.graph.functorch_levels import is_level_call, is_wrapped
from xpu_amp_dynamo.lowering.graph.graft import Inlined, inline_graph
from xpu_amp_dynamo.lowering.graph.node_kind import (
    CALLS,
    base_op_name,
    is_higher_order,
    op_name_of,
    source_place,
)
from xpu_amp_dynamo.lowering.graph.values import (
    dtypes_in,
    has_value,
    set_value,
    storage_of,
    tensor_inputs,
    tensors_in,
    value_of,
)
from xpu_amp_dynamo.lowering.graph.writes import (
    is_called_in_place,
    mutated_inputs,
    writes_only_statistics,
    written_storages,
)
from xpu_amp_dynamo.policy.cast_rule import Category, wanted_dtype

_INFERENCE_MODE_CALLS = (grad_mode._enter_inference_mode, grad_mode._exit_inference_mode)
# Calls that read no element of a tensor.
_SILENT_CALLS = (
    torch._C._autograd._saved_tensors_hooks_disable,
    torch._C._autograd._saved_tensors_hooks_enable,
    torch.ops.aten._assert_tensor_metadata.default,
)


def insert_casts(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Cast the inputs of listed ops, here and inside composites; tell whether anything was cast."""
    lowering = _CastInsertion(context, {s: node for node in gm.graph.nodes for s in written_storages([node])})
    lowering.lower_all(gm.graph.nodes)
    return lowering.changed or lowering.inputs.changed


class _CastInsertion:
    """One walk over a graph, in program order."""

    def __init__(self, context: LoweringContext, last_writes: dict[int | None, fx.Node]) -> None:
        self.context = context
        self.last_writes = last_writes
        self.caster = Caster()
        self.inputs = InputCasts(context, self.caster)
        self.changed = False
        self._narrowed: set[fx.Node] = set()
        self._erased: set[fx.Node] = set()

    def lower_all(self, nodes: Iterable[fx.Node]) -> None:
        """Lower nodes in order, but for those that disappear meanwhile."""
        for node in list(nodes):
            if node.op in CALLS and node not in self._erased:
                self._lower(node)

    def _lower(self, node: fx.Node) -> None:
        """Cast the inputs of one call as its state says, and recompute its value."""
        if node.target in _INFERENCE_MODE_CALLS:
            self.caster.forget_all()
        if node.target in _SILENT_CALLS:
            return
        written = mutated_inputs(node)
        if is_pin(node):
            self.changed |= settle_pin(node)
        elif is_higher_order(node) or is_level_call(node):
            self.inputs.restore_inputs(node)
        elif self.context.states[node].in_region or not has_value(node):
            self._lower_in_region(node, written)
        else:
            self._lower_as_captured(node, written)
        self.caster.forget(written)

    def _lower_in_region(self, node: fx.Node, written: list[fx.Node]) -> None:
        """Lower a call whose captured dtypes are those of autocast."""
        self.inputs.cast_inputs(
            node, {n: self.context.recorded_dtype(n) for n in self._narrowed.intersection(node.all_input_nodes)}
        )
        if not self._inline_composite(node, written):
            self._lower_listed(node, written)
            self._recompute(node, written)

    def _lower_as_captured(self, node: fx.Node, written: list[fx.Node]) -> None:
        """Lower a call of a program whose captured dtypes are a contract."""
        if self._inline_composite(node, written):
            return
        if self._runs_listed(node, written):
            self._lower_listed(node, written)
        else:
            self.context.report.ops["untouched"] += any(map(self.context.holds_tensor_on_device, node.all_input_nodes))
            if not self.context.reads_as_captured(node) and not self._may_read_narrow(node, written):
                self.inputs.restore_inputs(node)
        self._recompute_narrow(node)

    def _runs_listed(self, node: fx.Node, written: list[fx.Node]) -> bool:
        """Tell whether the policy lists a call and may decide about it, whatever dtypes its inputs have by now.

        Promotion is among captured dtypes: an op may have no kernel for what all its inputs were lowered to.
        """
        category = self._category(node)
        if category is not Category.PROMOTE:
            return category is not None
        return self.context.reads_as_captured(node) or self._may_read_narrow(node, written)

    def _may_read_narrow(self, node: fx.Node, written: list[fx.Node]) -> bool:
        """Tell whether a call that is not listed may read values that have other dtypes than captured."""
        harmless = not written or writes_only_statistics(node)
        return harmless and self.context.states[node].enabled and may_read_narrow(node, self.context)

    def _lower_listed(self, node: fx.Node, written: list[fx.Node]) -> None:
        """Cast the inputs of a call that the policy lists."""
        inputs = [n for n in node.all_input_nodes if self.context.holds_tensor_on_device(n)]
        name, category = str(op_name_of(node)), self._category(node)
        if category is Category.BANNED and inputs:
            raise BannedOpError(name, source_place(node))
        if inputs:
            self.context.report.ops[category.value if category else "untouched"] += 1
        if category is None:
            return self._keep_ineligible(node, written)
        wanted = wanted_dtype(category, [value_of(n).dtype for n in inputs], self.context.states[node].dtype)
        if wanted is not None:
            read = [n for n in inputs if n not in written]
            self._copy_if_written_later(node, read, wanted)
            self.inputs.cast_inputs(node, dict.fromkeys(read, wanted))
        return None

    def _copy_if_written_later(self, node: fx.Node, inputs: list[fx.Node], wanted: torch.dtype) -> None:
        """Copy inputs that eager code would have cast, where backward needs them as they are now."""
        differentiated = self.context.states[node].grad_enabled and any(value_of(n).requires_grad for n in inputs)
        for n in inputs if differentiated else ():
            cast_at_capture = value_of(n).dtype is wanted and self.context.recorded_dtype(n) is not wanted
            last_write = self.last_writes.get(storage_of(self.context.recorded.get(n, value_of(n))), node)
            if cast_at_capture and node < last_write:
                node.replace_input_with(n, insert_copy(n, node))

    def _category(self, node: fx.Node) -> Category | None:
        """Return what the policy does with a node in its state."""
        name = op_name_of(node)
        if name is None or is_called_in_place(node) or not self.context.states[node].enabled:
            return None
        return self.context.policy.category(name)

    def _keep_ineligible(self, node: fx.Node, written: list[fx.Node]) -> None:
        """Let a listed op that is not eligible here, a mutation or one in a disabled region, run as captured.

        Many of these refuse mixed dtypes only when they run for real, so this does not wait for a refusal.
        """
        if self.context.policy.category(base_op_name(node)) is None:
            return
        if all(map(self.context.is_as_recorded, written)):
            self.inputs.cast_inputs(
                node, {n: self.context.recorded_dtype(n) for n in tensor_inputs(node) if n not in written}
            )
        else:
            self.inputs.match_written(node, written)

    def _inline_composite(self, node: fx.Node, written: list[fx.Node]) -> bool:
        """Replace an unlisted call by the ops inside it if the policy casts any of those; tell whether it did."""
        state = self.context.states[node]
        if not state.enabled or written or self._category(node) is not None:
            return False
        foreign = trace_foreign(node, self.context, state)
        if foreign is not None:
            return self._inline_foreign(node, foreign)
        as_captured = not state.in_region and has_value(node)
        traced = trace_composite(node, self.context, state, with_casts=not as_captured)
        if traced is None:
            return False
        inlined = self._inline(node, traced, "composite")
        if as_captured:
            self._lower_inlined(inlined.nodes)
        else:
            for result in inlined.results:
                self.inputs.keep_wrapped(result)
        return True

    def _inline_foreign(self, node: fx.Node, traced: fx.GraphModule) -> bool:
        """Replace a call by what the autocast kernel of its own library does."""
        inlined = self._inline(node, traced, "foreign")
        for inner in inlined.nodes:
            self.context.recorded.setdefault(inner, value_of(inner))
        self._narrowed.update(result for result in inlined.results if not self.context.is_as_recorded(result))
        for result in inlined.results:
            self.inputs.keep_wrapped(result)
        return True

    def _inline(self, node: fx.Node, traced: fx.GraphModule, kind: str) -> Inlined:
        """Put the ops of a trace in the place of a call, and count the call as one of a kind."""
        inlined = inline_graph(node, traced, self.context, self.caster)
        self._erased.update(inlined.erased)
        self.context.report.ops[kind] += 1
        self.changed = True
        return inlined

    def _lower_inlined(self, nodes: list[fx.Node]) -> None:
        """Lower the ops of a composite, which were traced as captured."""
        for node in nodes:
            self.context.recorded.setdefault(node, value_of(node))
        pins = pin_memory(nodes, set(), storages_written(nodes), self.context)
        self.lower_all(sorted([*nodes, *pins]))

    def _recompute(self, node: fx.Node, written: list[fx.Node]) -> None:
        """Bring the value of a call inside a region up to date with its inputs."""
        unchanged = has_value(node) and self.context.reads_as_captured(node)
        if unchanged and not self._may_have_been_cast(node):
            return
        recorded = self.context.recorded.get(node)
        try:
            value = self._run(node, written)
            if not isinstance(recorded, torch.Tensor) or not is_wrapped(recorded) or value.dtype is not recorded.dtype:
                set_value(node, value)
        except REFUSALS as error:
            self._match_dtypes(node, written, error)
        self.context.recorded.setdefault(node, value_of(node))
        self.inputs.keep_wrapped(node)

    def _recompute_narrow(self, node: fx.Node) -> None:
        """Bring the value of a call outside regions up to date with its inputs, or let it run as captured."""
        if self.context.reads_as_captured(node):
            return
        recorded = value_of(node)
        try:
            value = with_recorded_sizes(run_node(node), recorded) if tensors_in(recorded) else recorded
        except REFUSALS:
            self.inputs.restore_inputs(node)
            self.context.refused.add(node)
            return
        if dtypes_in(value) != dtypes_in(recorded):
            set_value(node, value)
            self._narrowed.add(node)
            self.inputs.keep_wrapped(node)

    def _may_have_been_cast(self, node: fx.Node) -> bool:
        """Tell whether the autocast that was on at capture, which may follow other lists, can have cast inputs."""
        name = op_name_of(node)
        return self.context.states[node].enabled and name not in LAYOUT_OPS and name != "getitem"

    def _run(self, node: fx.Node, written: list[fx.Node]) -> Any:
        if written and not writes_only_statistics(node):
            return run_mutation(node)
        if not has_value(node):
            return run_node(node)
        recorded = value_of(node)
        if not tensors_in(recorded):
            return recorded
        return with_recorded_sizes(run_node(node), recorded)

    def _match_dtypes(self, node: fx.Node, written: list[fx.Node], error: Exception) -> None:
        """Give an op that refuses its new inputs the dtypes it was captured with, a mutation those it writes to."""
        if written:
            self.inputs.match_written(node, written)
        else:
            self.inputs.restore_inputs(node)
        try:
            set_value(node, self._run(node, written))
        except REFUSALS as again:
            if not has_value(node) or not self.context.reads_as_captured(node):
                raise LoweringError(f"cannot lower {node.format_node()}: {error}{source_place(node)}") from again
            self.context.refused.add(node)
