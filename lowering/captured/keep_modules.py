"""Converts what enters and leaves kept modules, as hooks on these would.

before:  y = norm(x); z = linear(y, w)                              # norm is kept in float32, x: bfloat16
after:   kept = x.to(float32); y = norm(kept); z = linear(y, w)

One conversion serves all that a call of the module reads of a value, so that gradients add up behind it as they do
behind a hook's. What comes out of a module that is kept in the lower precision is converted too. Tensors that the
module holds itself are no inputs, and memory that it is given and writes to keeps its dtype. Conversions are pins:
those that turn out to do nothing disappear. Inside of what is kept in float32, a conversion to the dtype of the region
is one to float32: Python may have read that dtype off a value, which is float32 now.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import fx

from xpu_amp_dynamo.compat.pytree import leaves_of, map_leaves
from xpu_amp_dynamo.lowering.captured.pin_captured_dtypes import mark_as_pin
from xpu_amp_dynamo.lowering.graph.casting import insert_conversion
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.kept_calls import KeptCall, count_common
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS, op_name_of
from xpu_amp_dynamo.lowering.graph.values import storage_of, tensors_in, value_of
from xpu_amp_dynamo.lowering.graph.writes import written_storages
from xpu_amp_dynamo.policy.cast_rule import is_eligible


def keep_modules(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Give kept modules inputs and outputs of the dtype that they are kept in; tell whether anything changed."""
    if not context.modules.patterns:
        return False
    nodes = list(gm.graph.nodes)
    boundaries = _Boundaries(nodes, context)
    widened = [_widen_dtype_arguments(node, context) for node in nodes if node.op in CALLS]
    for node in nodes:
        boundaries.convert_inputs(node)
    return boundaries.changed or any(widened)


class _Boundaries:
    """The places of one graph at which values enter and leave kept modules."""

    def __init__(self, nodes: list[fx.Node], context: LoweringContext) -> None:
        self.context = context
        self.changed = False
        self._calls = {node: context.modules.calls_around(node) for node in nodes}
        self._converted: dict[tuple[fx.Node, KeptCall], fx.Node] = {}
        given = [value_of(node) for node in nodes if node.op in ("placeholder", "get_attr")]
        self._given = {storage_of(tensor) for tensor in tensors_in(given)} - {None}
        self._written: dict[KeptCall, set[int]] = defaultdict(set)
        for node, calls in self._calls.items():
            for call in calls:
                self._written[call] |= written_storages([node])
                self._report(call)

    def convert_inputs(self, node: fx.Node) -> None:
        """Have a node read what was converted on the way to it."""
        for source in node.all_input_nodes:
            value = value_of(source)
            if self.context.on_device(value) and is_eligible(value):
                node.replace_input_with(source, self._convert(source, node))

    def _convert(self, source: fx.Node, user: fx.Node) -> fx.Node:
        """Return a value as it is behind all boundaries between the node that makes it and a user."""
        made_in, used_in = self._calls[source], self._calls[user]
        common = count_common(made_in, used_in)
        converted = source
        for position in reversed(range(common, len(made_in))):
            converted = self._leave(made_in[: position + 1], converted, source)
        for call in used_in[common:]:
            if self._is_in_force(call) and self._is_input(source, call):
                converted = self._converted_once(converted, call, user, like=user)
        return converted

    def _leave(self, calls: tuple[KeptCall, ...], value: fx.Node, source: fx.Node) -> fx.Node:
        """Return a value that leaves the last of some calls as it is outside of that."""
        *around, call = calls
        if call.kept.float32 or not self._is_in_force(call) or self._is_given_and_written(source, call):
            return value
        value = self._converted_once(value, call, value.next, like=source)
        # What a module kept in float32 gets of one inside it is an input, too.
        if around and around[-1].kept.float32 and self._is_in_force(around[-1]):
            value = self._converted_once(value, around[-1], value.next, like=source)
        return value

    def _converted_once(self, node: fx.Node, call: KeptCall, before: fx.Node, *, like: fx.Node) -> fx.Node:
        """Return the conversion of a value at the boundary of a call, placed before a node if it is new."""
        key = node, call
        if key not in self._converted:
            dtype = torch.float32 if call.kept.float32 else self.context.entries[call].dtype
            self._converted[key] = conversion = insert_conversion(node, dtype, before, like=like)
            mark_as_pin(conversion)
            self.context.recorded[conversion] = self.context.recorded[node]
            self.context.states[conversion] = self.context.states[like]
            self.changed = True
        return self._converted[key]

    def _is_in_force(self, call: KeptCall) -> bool:
        """Tell whether a kept module is called where the policy applies."""
        return self.context.entries[call].enabled

    def _is_input(self, source: fx.Node, call: KeptCall) -> bool:
        """Tell whether a value from outside of a call is an input that may be converted."""
        written = storage_of(value_of(source)) in self._written[call]
        return not written and not self.context.modules.is_own(source, call.kept)

    def _is_given_and_written(self, source: fx.Node, call: KeptCall) -> bool:
        """Tell whether a value is memory from outside of the graph that a call writes to.

        What ``self.count += 1`` gives is assigned to the buffer again: a converted copy would take its place.
        """
        storage = storage_of(value_of(source))
        return storage in self._given and storage in self._written[call]

    def _report(self, call: KeptCall) -> None:
        for pattern in self.context.modules.patterns.matching(call.kept):
            names = self.context.report.kept.setdefault(pattern, [])
            if call.kept.module not in names:
                names.append(call.kept.module)


def _widen_dtype_arguments(node: fx.Node, context: LoweringContext) -> bool:
    """Have a call inside a module kept in float32 name float32 where it names the region's dtype; tell if it did.

    Not views, which would show other bits.
    """
    state = context.states[node]
    names = state.is_kept_float32 and state.dtype in leaves_of((node.args, node.kwargs))
    if not names or op_name_of(node) == "view":
        return False

    def widen(leaf: object) -> object:
        return torch.float32 if leaf is state.dtype else leaf

    node.args, node.kwargs = map_leaves(widen, (node.args, node.kwargs))
    return True
