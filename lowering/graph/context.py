"""What every pass knows about the graph in hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import fx

from xpu_amp_dynamo.compat.fake_tensors import FakeTensorMode
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.kept_calls import KeptCall, KeptModules
from xpu_amp_dynamo.lowering.graph.values import dtypes_in, tensor_inputs, value_of
from xpu_amp_dynamo.lowering.report import LoweringReport
from xpu_amp_dynamo.policy.cast_rule import (
    Category,
    argument_dtypes,
    takes_float32_parameters,
    wanted_dtype,
)
from xpu_amp_dynamo.policy.policy import Policy


class Reason(NamedTuple):
    """Why a call gets the inputs that it gets.

    Args:
        rule: the name of the rule.
        words: what it says.
        category: what the policy does with the call, if it lists it.
        inside: the composite op that the call was found in, empty if it stands in the program.
    """

    rule: str
    words: str
    category: Category | None = None
    inside: str = ""


@dataclass(frozen=True)
class LoweringContext:
    """The settings of one lowering, and what is known of each node of its graph.

    Args:
        policy: the policy to lower.
        device_type: the device type whose autocast is lowered; tensors of others stay untouched.
        initial_state: the autocast state at the graph's entry.
        fake_mode: the fake tensor mode that the graph's values belong to.
        preserve_output_dtype: whether outputs keep the dtypes recorded at capture.
        report: what the lowering did, counted over the graph and its subgraphs.
        lower_inside: lowers a subgraph, given its context.
        example_inputs: a value for each placeholder; used only where capture recorded none.
        inputs_now: the values that the inputs of a subgraph have by now, where they may differ from those of capture.
        modules: the modules that are kept in one precision.
        recorded: the value of each node at capture, from ``record_values`` on.
        states: the autocast state of each node, from ``erase_regions`` on.
        entries: the autocast state around each call of a kept module, from ``erase_regions`` on.
        refused: listed calls that do not run in the dtype which the policy wants, left as captured.
        reasons: why each call gets the inputs that it gets, where the report is to have details.
    """

    policy: Policy
    device_type: str
    initial_state: AutocastState
    fake_mode: FakeTensorMode
    preserve_output_dtype: bool
    report: LoweringReport
    lower_inside: Callable[[fx.GraphModule, LoweringContext], None]
    example_inputs: Sequence[Any] = ()
    inputs_now: Sequence[Any] = ()
    modules: KeptModules = field(default_factory=KeptModules)
    recorded: dict[fx.Node, Any] = field(default_factory=dict)
    states: dict[fx.Node, AutocastState] = field(default_factory=dict)
    entries: dict[KeptCall, AutocastState] = field(default_factory=dict)
    refused: set[fx.Node] = field(default_factory=set)
    reasons: dict[fx.Node, Reason] = field(default_factory=dict)

    def for_subgraph(self, state: AutocastState, calls: tuple[KeptCall, ...]) -> LoweringContext:
        """Return the context of a subgraph that is called under ``state``; its outputs always keep their dtypes.

        Args:
            state: the autocast state at its entry.
            calls: the calls of kept modules that its call lies in.
        """
        nothing: dict[str, Any] = {
            "example_inputs": (),
            "inputs_now": (),
            "recorded": {},
            "states": {},
            "refused": set(),
            "reasons": {},
        }
        known: dict[str, Any] = {"modules": self.modules.inside(calls), "entries": dict(self.entries)}
        return dataclasses.replace(self, initial_state=state, preserve_output_dtype=True, **nothing, **known)

    def know_as(self, new: fx.Node, old: fx.Node) -> None:
        """Note for a new node what is known of another, in whose place it stands."""
        self.recorded[new] = self.recorded[old]
        self.states[new] = self.states[old]

    def forget(self, erased: Iterable[fx.Node]) -> None:
        """Drop what is known of nodes that are gone."""
        for node in erased:
            self.recorded.pop(node, None)
            self.states.pop(node, None)

    def on_device(self, value: object) -> bool:
        """Tell whether a value is a tensor of the lowered device type."""
        return isinstance(value, torch.Tensor) and value.device.type == self.device_type

    def wanted_dtype(
        self, op: str, category: Category | None, arguments: Iterable[Any], lower_dtype: torch.dtype
    ) -> torch.dtype | None:
        """Return the dtype to which an op's arguments, in its own order, are to be cast; None if it is left alone."""
        mixes = takes_float32_parameters(op, self.device_type)
        return wanted_dtype(category, argument_dtypes(arguments, self.on_device), lower_dtype, takes_mixture=mixes)

    def holds_tensor_on_device(self, node: fx.Node) -> bool:
        """Tell whether a node's value is a tensor of the lowered device type."""
        return self.on_device(value_of(node))

    def reads_as_captured(self, node: fx.Node) -> bool:
        """Tell whether all inputs of a call have the dtypes that it was captured with."""
        return all(map(self.is_as_recorded, node.all_input_nodes))

    def is_as_recorded(self, node: fx.Node) -> bool:
        """Tell whether a node's value still has the dtypes that capture recorded, a cast those of its source."""
        source = self._recorded_node(node)
        return source is not None and dtypes_in(self.recorded[source]) == dtypes_in(value_of(node))

    def recorded_dtype(self, node: fx.Node) -> torch.dtype:
        """Return the dtype that capture recorded for a node; for a cast of ours, that of its source."""
        source = self._recorded_node(node)
        return value_of(node).dtype if source is None else self.recorded[source].dtype

    def recorded_dtypes(self, node: fx.Node) -> dict[fx.Node, torch.dtype]:
        """Return the dtypes that capture recorded for the inputs of a call."""
        return {n: self.recorded_dtype(n) for n in tensor_inputs(node)}

    def is_narrowed(self, node: fx.Node) -> bool:
        """Tell whether a node outside regions has another dtype by now than the program knows."""
        return node in self.states and not self.states[node].in_region and not self.is_as_recorded(node)

    def _recorded_node(self, node: fx.Node) -> fx.Node | None:
        """Return the node whose recorded value a node has: itself, or what a cast of ours was made from."""
        while node not in self.recorded:
            if not node.all_input_nodes:
                return None
            node = node.all_input_nodes[0]
        return node
