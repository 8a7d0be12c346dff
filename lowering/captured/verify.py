"""Checks a lowered graph against what the lowering promises. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.calls_in_graphs import INFERENCE_MODE_CALLS
from xpu_amp_dynamo.errors import LoweringError, broken_promise
from xpu_amp_dynamo.lowering.captured.find_regions import DEVICE_CALLS, ENTER, EXIT, GLOBAL_CALLS, find_regions
from xpu_amp_dynamo.lowering.captured.wanted import wanted_dtype_of
from xpu_amp_dynamo.lowering.graph.casting import is_inserted_cast
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.fake_run import REFUSALS, call_fake
from xpu_amp_dynamo.lowering.graph.functorch_levels import is_level_call
from xpu_amp_dynamo.lowering.graph.node_kind import (
    CALLS,
    GRAD_MODE_CALLS,
    SILENT_CALLS,
    is_higher_order,
    op_name_of,
)
from xpu_amp_dynamo.lowering.graph.rerun import Values, anew, ends_of, memories_of, newly_shared, rerun
from xpu_amp_dynamo.lowering.graph.values import dtypes_in, has_value, tensor_inputs, value_of
from xpu_amp_dynamo.lowering.graph.writes import is_called_in_place, mutated_inputs
from xpu_amp_dynamo.policy.cast_rule import needs_cast

Check = Callable[[fx.Node, LoweringContext], str | None]
_WITHOUT_VALUES = (*GRAD_MODE_CALLS, *INFERENCE_MODE_CALLS, *SILENT_CALLS, ENTER, EXIT, *DEVICE_CALLS, *GLOBAL_CALLS)


class CapturedVerifier:
    """Checks a captured graph against what the lowering promises and against what it was when this was made.

    Args:
        gm: the graph.
        context: the lowering in hand.
        thorough: whether it will be checked thoroughly.
    """

    def __init__(self, gm: fx.GraphModule, context: LoweringContext, thorough: bool) -> None:
        self._gm = gm
        self._context = context
        self._thorough = thorough
        self._ends = ends_of(gm.graph)
        self._inputs = len(gm.graph.find_nodes(op="placeholder"))
        self._values = list(map(_recorded, self._ends))
        # Capture does not record every view as one: what shares memory in a run before the passes may do so after.
        values = _run(gm.graph) if thorough else {}
        self._memories_run = _memories(gm.graph, values) if values else None

    def check(self, passes: str) -> None:
        """Check that the graph is well formed and fully lowered.

        Raises:
            LoweringError: a region is left, a listed op has an input of another dtype than the rule wants, a cast
                does nothing or is not used, an output has another dtype than recorded, or inputs and outputs share
                memory that they did not share before; and in thorough checks, a node computes another dtype than
                recorded. The message names the node.
        """
        verify(self._gm, self._context)
        self._check_sharing(memories_of(map(_recorded, ends_of(self._gm.graph))), passes)
        for node, value in (_run(self._gm.graph) if self._thorough else {}).items():
            if has_value(node) and dtypes_in(value_of(node)) != dtypes_in(value):
                problem = f"computes {dtypes_in(value)}, recorded are {dtypes_in(value_of(node))}"
                raise broken_promise(f"{node.format_node()} {problem}")

    def check_thoroughly(self, passes: str) -> None:
        """Check the same of memory in the midst of the passes, by running the graph on fake tensors.

        Not of dtypes: inside regions these were recorded under autocast, and are true only once casts are there.

        Raises:
            LoweringError: inputs and outputs share memory that they did not share before.
        """
        self._gm.graph.lint()
        values = _run(self._gm.graph)
        if values:
            self._check_sharing(_memories(self._gm.graph, values), passes)

    def _check_sharing(self, memories: list[int | None], passes: str) -> None:
        ends = ends_of(self._gm.graph)
        # What a helper returned as one value may be several once its ops stand in its place.
        same = len(ends) == len(self._ends)
        shared = newly_shared(self._memories_before(ends), memories, self._inputs) if same else None
        before = self._memories_run
        if shared is not None and (before is None or newly_shared(before, memories, self._inputs)):
            one, other = (ends[position] for position in shared)
            raise broken_promise(f"after {passes}, {other} shares memory with {one}")

    def _memories_before(self, ends: list[Any]) -> list[int | None]:
        """Return the memories of inputs and outputs at capture; None where that is not known or no contract.

        Inside regions a conversion may do something under one policy and nothing under another.
        """
        memories = memories_of(self._values)
        return [None if self._follows_autocast(end) else memory for end, memory in zip(ends, memories, strict=True)]

    def _follows_autocast(self, end: Any) -> bool:
        state = self._context.states.get(end) or self._context.initial_state
        return state.in_region and isinstance(end, fx.Node) and end.op != "placeholder"


def verify(gm: fx.GraphModule, context: LoweringContext) -> None:
    """Check that a graph is well formed and fully lowered, see :meth:`CapturedVerifier.check`."""
    gm.graph.lint()
    left = find_regions(gm.graph, context.initial_state, context.device_type).markers
    if left:
        raise LoweringError(f"autocast regions are left in the lowered graph: {left}")
    for node in gm.graph.nodes:
        for check in (_check_listed_op, _check_cast, _check_output):
            problem = check(node, context)
            if problem:
                raise broken_promise(f"{problem} at {node.format_node()}")


def _recorded(end: Any) -> Any:
    """Return the value of an input or output, None of a constant."""
    return value_of(end) if isinstance(end, fx.Node) else None


def _memories(graph: fx.Graph, values: Values) -> list[int | None]:
    """Return the memories of inputs and outputs in a run, in which inputs that share theirs got some of their own."""
    inputs = graph.find_nodes(op="placeholder")
    recorded = dict(zip(memories_of(map(values.get, inputs)), memories_of(map(value_of, inputs)), strict=True))
    return [recorded.get(memory, memory) for memory in memories_of(map(values.get, ends_of(graph)))]


def _run(graph: fx.Graph) -> Values:
    """Return what the nodes compute; nothing for graphs of ``torch.func``, whose values are dead wrappers."""
    if any(map(is_level_call, graph.nodes)) or not all(map(has_value, graph.find_nodes(op="placeholder"))):
        return {}
    return rerun(graph, _call, _can_run)


def _can_run(node: fx.Node) -> bool:
    return node.op in CALLS and node.target not in _WITHOUT_VALUES and not is_higher_order(node)


def _call(node: fx.Node, values: Values) -> Any:
    """Return what a call gives, what was recorded for it if it refuses: sizes that depend on data are others now."""
    try:
        return call_fake(node, *fx.map_arg((node.args, node.kwargs), values.__getitem__))
    except REFUSALS:
        return anew(value_of(node))


def _check_listed_op(node: fx.Node, context: LoweringContext) -> str | None:
    """Say which input of a listed op has the wrong dtype."""
    state = context.states.get(node)
    name = op_name_of(node)
    if state is None or not state.enabled or name is None or is_called_in_place(node) or is_higher_order(node):
        return None
    if node in context.refused:
        return None
    inputs, written = [n for n in tensor_inputs(node) if context.on_device(value_of(n))], mutated_inputs(node)
    wanted = wanted_dtype_of(node, context.policy.categories.get(name), context)
    values = [value_of(n) for n in inputs if n not in written]
    wrong = [v.dtype for v in values if wanted and needs_cast(v, wanted)]
    return f"{name} wants {wanted} and has {wrong}" if wrong else None


def _check_cast(node: fx.Node, context: LoweringContext) -> str | None:
    """Say which cast does nothing, or for nothing."""
    if not is_inserted_cast(node):
        return None
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if value_of(source).dtype is value_of(node).dtype:
        return "cast to the dtype it comes from"
    return None if node.users else "cast that nothing uses"


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
