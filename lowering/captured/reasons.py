"""Says in words why a call gets the inputs that it gets. Changes nothing."""

from __future__ import annotations

from torch import fx

from xpu_amp_dynamo.lowering.captured.decide import Decision, Rule
from xpu_amp_dynamo.lowering.graph.context import LoweringContext, Reason
from xpu_amp_dynamo.lowering.graph.node_kind import op_name_of
from xpu_amp_dynamo.policy.cast_rule import Category
from xpu_amp_dynamo.policy.listing import where_listed

_CATEGORIES = {
    Category.LOWER_PRECISION: "lower precision",
    Category.FLOAT32: "float32",
    Category.PROMOTE: "the widest dtype of its inputs",
    Category.FOLLOW: "the dtype of its first input",
}
# Of casts behind values.
PINNED = Reason("captured", "what shares its memory may care about dtypes: all of it has that of capture")


def reason_of(node: fx.Node, decision: Decision, context: LoweringContext) -> Reason:
    """Return the reason of a decision about a call, which stands in the graph as capture left it."""
    state = context.states[node]
    by = "in a region" if state.in_region else "by the options"
    if decision.category is not None:
        listed = where_listed(context.policy, str(op_name_of(node)))
        words = f"{_CATEGORIES[decision.category]} by {listed}, {by}"
    else:
        words = decision.rule.value
    if decision.rule is not Rule.LISTED and not state.enabled:
        words = _why_off(node, by, context)
    return Reason(decision.rule.name.lower(), words, decision.category)


def _why_off(node: fx.Node, by: str, context: LoweringContext) -> str:
    calls = context.modules.calls_around(node)
    if calls and calls[-1].kept.float32:
        return f"module {calls[-1].kept.module!r} is kept in float32"
    return f"autocast is off {by}"
