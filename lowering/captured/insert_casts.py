"""Lowers the policy: every listed op gets its inputs in the dtype that the cast rule wants.

before:  y = linear(x, w, b); z = svdvals(relu(y))                         # float32[8, 64]
after:   y = linear(x.to(bfloat16), w.to(bfloat16), b.to(bfloat16))        # bfloat16[8, 64]
         z = svdvals(relu(y).to(float32))                                  # as captured

What becomes of each call is decided in ``decide``; here it is done, in program order. The values of all nodes
downstream are recomputed by running them on fake tensors. Left alone: mutations and ``out=`` calls, float64, integer
and complex inputs, tensors of other device types, nodes of disabled regions, and calls that cannot be run or traced
again. An op that refuses the dtypes that lowering brought about gets the recorded ones back.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from xpu_amp_dynamo.compat.calls_in_graphs import INFERENCE_MODE_CALLS
from xpu_amp_dynamo.lowering.captured.decide import Decision, Rule, decide, follows_autocast
from xpu_amp_dynamo.lowering.captured.input_casts import InputCasts
from xpu_amp_dynamo.lowering.captured.lower_body import lower_body
from xpu_amp_dynamo.lowering.captured.pin_captured_dtypes import is_pin, pin_memory, settle_pin, storages_written
from xpu_amp_dynamo.lowering.captured.reasons import PINNED, reason_of
from xpu_amp_dynamo.lowering.captured.recompute import recompute_captured, recompute_in_region
from xpu_amp_dynamo.lowering.composites.inline import inline_trace
from xpu_amp_dynamo.lowering.graph.casting import Caster, insert_copy, is_inserted_cast
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS, SILENT_CALLS, op_name_of
from xpu_amp_dynamo.lowering.graph.values import value_of
from xpu_amp_dynamo.lowering.graph.writes import mutated_inputs, written_storages
from xpu_amp_dynamo.lowering.report import wants_details


def insert_casts(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Cast the inputs of listed ops, here and inside composites; tell whether anything was cast."""
    insertion = _CastInsertion(context, {s: node for node in gm.graph.nodes for s in written_storages([node])})
    insertion.lower_all(gm.graph.nodes)
    for cast in reversed(list(filter(is_inserted_cast, gm.graph.nodes))):
        if not cast.users:
            gm.graph.erase_node(cast)
    return insertion.changed or insertion.inputs.changed


class _CastInsertion:
    """One walk over a graph, in program order."""

    def __init__(self, context: LoweringContext, last_writes: dict[int | None, fx.Node]) -> None:
        self.context = context
        self.last_writes = last_writes
        self.caster = Caster()
        self.inputs = InputCasts(context, self.caster)
        self.changed = False
        self.gives_reasons = wants_details()

    def lower_all(self, nodes: Iterable[fx.Node]) -> None:
        """Lower nodes in order, but for those that disappear meanwhile."""
        for node in list(nodes):
            if node.op in CALLS and node in self.context.states and node.target not in SILENT_CALLS:
                self._lower(node)

    def _lower(self, node: fx.Node) -> None:
        """Do with one call what is decided, and bring its value up to date."""
        written = mutated_inputs(node)
        if node.target in INFERENCE_MODE_CALLS:
            self.caster.forget_all()
        if is_pin(node):
            self.context.reasons[node] = PINNED
            self.changed |= settle_pin(node)
        else:
            # A module kept in the lower precision was captured outside of regions, and gets what is lower as it is.
            if follows_autocast(node, self.context) and not self._is_kept_lower(node):
                self._enter_region(node)
            self._apply(node, decide(node, self.context, self.last_writes))
        self.caster.forget(written)

    def _is_kept_lower(self, node: fx.Node) -> bool:
        state = self.context.states[node]
        return state.kept is not None and not state.captured.in_region

    def _enter_region(self, node: fx.Node) -> None:
        """Give values of code outside regions the dtypes that code inside was captured with."""
        narrowed = filter(self.context.is_narrowed, node.all_input_nodes)
        self.inputs.cast_inputs(node, {n: self.context.recorded_dtype(n) for n in narrowed})

    def _apply(self, node: fx.Node, decision: Decision) -> None:
        if decision.rule is Rule.BODY:
            return lower_body(node, self.context)
        self._count(node, decision)
        self._give_reason(node, decision)
        if decision.traced is not None:
            return self._inline(node, decision.rule, decision.traced)
        for n in decision.copies:
            node.replace_input_with(n, insert_copy(n, node))
        if decision.rule in (Rule.CONTRACT, Rule.CAPTURED):
            self.inputs.restore_inputs(node)
        else:
            self.inputs.cast_inputs(node, decision.casts)
        if decision.rule is Rule.CONTRACT:
            return None
        recompute = recompute_in_region if follows_autocast(node, self.context) else recompute_captured
        return recompute(node, self.context, self.inputs)

    def _give_reason(self, node: fx.Node, decision: Decision) -> None:
        """Note why a call gets the inputs that it gets, where somebody asks."""
        if self.gives_reasons:
            found_in = self.context.reasons[node].inside if node in self.context.reasons else ""
            self.context.reasons[node] = reason_of(node, decision, self.context)._replace(inside=found_in)

    def _count(self, node: fx.Node, decision: Decision) -> None:
        """Count a call on tensors of the device type by what becomes of it."""
        if decision.rule is not Rule.CONTRACT and any(map(self.context.holds_tensor_on_device, node.all_input_nodes)):
            named = decision.traced is not None or decision.rule is Rule.KEPT_FLOAT32
            kind = decision.rule.name.lower() if named else "untouched"
            self.context.report.ops[decision.category.value if decision.category else kind] += 1

    def _inline(self, node: fx.Node, rule: Rule, traced: fx.GraphModule) -> None:
        """Replace a call by the ops inside it, which are cast already, or were traced as captured."""
        captured = rule is Rule.COMPOSITE and not follows_autocast(node, self.context)
        name, reason = str(op_name_of(node)), self.context.reasons.pop(node, None)
        inlined = inline_trace(node, traced, self.context, self.caster)
        if reason is not None:
            self.context.reasons.update(dict.fromkeys(inlined.nodes, reason._replace(inside=reason.inside or name)))
        self.changed = True
        if captured or rule is Rule.FOREIGN:
            for inner in inlined.nodes:
                self.context.recorded.setdefault(inner, value_of(inner))
        if captured:
            pins = pin_memory(inlined.nodes, set(), storages_written(inlined.nodes), self.context)
            self.lower_all(sorted([*inlined.nodes, *pins]))
        else:
            for result in inlined.results:
                self.inputs.keep_wrapped(result)
