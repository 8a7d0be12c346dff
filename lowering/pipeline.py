"""The lowering of one graph: the passes in order, each followed by verification."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from xpu_amp_dynamo.lowering.captured.erase_regions import erase_regions
from xpu_amp_dynamo.lowering.captured.inline_regions import inline_regions
from xpu_amp_dynamo.lowering.captured.insert_casts import insert_casts
from xpu_amp_dynamo.lowering.captured.pin_captured_dtypes import pin_captured_dtypes
from xpu_amp_dynamo.lowering.captured.record_values import fake_mode_of, record_values
from xpu_amp_dynamo.lowering.captured.replace_in_place import replace_in_place
from xpu_amp_dynamo.lowering.captured.restore_output_dtypes import restore_output_dtypes
from xpu_amp_dynamo.lowering.captured.update_assertions import update_assertions
from xpu_amp_dynamo.lowering.captured.verify import count_casts, verify
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.functorch_levels import outside_levels
from xpu_amp_dynamo.lowering.graph.keep_graph_on_error import keep_graph_on_error
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS, subgraphs_of
from xpu_amp_dynamo.lowering.report import LoweringReport
from xpu_amp_dynamo.policy.policy import Policy

Pass = Callable[[fx.GraphModule, LoweringContext], bool]


def lower_graph(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    policy: Policy,
    device_type: str,
    initial_state: AutocastState,
    preserve_output_dtype: bool = True,
) -> LoweringReport:
    """Lower autocast into a graph, in place.

    Args:
        gm: a graph from Dynamo, export or ``torch.fx.symbolic_trace``, before AOTAutograd.
        example_inputs: a value for each placeholder; used only where capture recorded none.
        policy: which ops run in which dtype.
        device_type: the device type whose autocast is lowered.
        initial_state: the autocast state at the graph's entry.
        preserve_output_dtype: cast outputs to the dtypes recorded at capture.

    Returns:
        What was done.

    Raises:
        BannedOpError: the policy bans an op of the graph.
        LoweringError: the graph cannot be lowered.

    Whatever is raised, the graph is then as it was.
    """
    started = time.perf_counter()
    report = LoweringReport()
    fake_mode = fake_mode_of(gm)
    context = LoweringContext(policy, device_type, initial_state, fake_mode, preserve_output_dtype, report)
    with (
        keep_graph_on_error(gm),
        outside_levels(),
        fake_mode,
        _no_new_symbols(fake_mode),
        _save_tensors_unseen(),
        torch._C._DisableAutocast(),
    ):
        _run_passes(gm, example_inputs, context)
    report.seconds = time.perf_counter() - started
    return report


def _save_tensors_unseen() -> contextlib.AbstractContextManager[None]:
    """Keep what reruns save for backward from the hooks around compilation: checkpointing counts what it gets.

    Inside ``torch.func.grad`` there are no hooks, and none can be set.
    """
    enabled = torch._C._autograd._saved_tensors_hooks_is_enabled()  # type: ignore[attr-defined]
    return saved_tensors_hooks(_identity, _identity) if enabled else contextlib.nullcontext()


def _identity(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _no_new_symbols(fake_mode: FakeTensorMode) -> contextlib.AbstractContextManager[None]:
    """Drop the symbols that reruns make for data-dependent sizes: the graph goes on with the recorded ones."""
    shape_env = fake_mode.shape_env
    return shape_env.ignore_fresh_unbacked_symbols() if shape_env else contextlib.nullcontext()


def _run_passes(gm: fx.GraphModule, example_inputs: Sequence[Any], context: LoweringContext) -> None:
    """Run every pass on one graph, verify it, and clean up if any pass changed it."""
    inlined = inline_regions(gm)
    context.recorded = record_values(gm, example_inputs, context.fake_mode)
    changed = [run(gm, context) for run in PASSES]
    verify(gm, context)
    if inlined or any(changed):
        gm.recompile()
    context.report.casts += count_casts(gm)


def lower_subgraphs(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Lower the graphs that higher-order ops call, each under the state of its call; tell whether there were any.

    Inputs and outputs of a subgraph keep their recorded dtypes, so it can be lowered without its caller.
    A subgraph that is called under several states is copied, one for each.
    """
    lowered: dict[tuple[fx.GraphModule, AutocastState], fx.GraphModule] = {}
    calls = [
        (node, getter, module, _state_inside(node, getter, context))
        for node in gm.graph.nodes
        for getter, module in (subgraphs_of(node) if node.op in CALLS else ())
    ]
    pristine = {module: copy.deepcopy(module) for _, _, module, _ in calls if _states(module, calls) > 1}
    for node, getter, module, state in calls:
        if (module, state) not in lowered:
            first = not any(done is module for done, _ in lowered)
            lowered[module, state] = module if first else copy.deepcopy(pristine[module])
            _run_passes(lowered[module, state], [], context.for_subgraph(state))
        if lowered[module, state] is not module:
            node.replace_input_with(getter, _fetch(gm, lowered[module, state], getter))
    return bool(calls)


def _states(module: fx.GraphModule, calls: list[tuple[fx.Node, fx.Node, fx.GraphModule, AutocastState]]) -> int:
    """Count the different states under which a subgraph is called."""
    return len({state for _, _, called, state in calls if called is module})


def _state_inside(node: fx.Node, getter: fx.Node, context: LoweringContext) -> AutocastState:
    """Return the state of a subgraph's entry: that of its call, but a custom backward runs outside regions."""
    state = context.states[node]
    backward = str(node.target) == "autograd_function_apply" and node.args[1] is getter
    return dataclasses.replace(state, enabled=False) if backward else state


def _fetch(gm: fx.GraphModule, module: fx.GraphModule, getter: fx.Node) -> fx.Node:
    """Add a subgraph to its caller and return a node that fetches it, placed where another is fetched."""
    name = f"{getter.target}_{len(list(gm.children()))}"
    gm.add_submodule(name, module)
    with gm.graph.inserting_after(getter):
        return gm.graph.get_attr(name)


# Regions go first: they say which state each node runs in. Outputs come last: their dtypes are known by then.
PASSES: tuple[Pass, ...] = (
    erase_regions,
    lower_subgraphs,
    replace_in_place,
    pin_captured_dtypes,
    insert_casts,
    update_assertions,
    restore_output_dtypes,
)
