"""Finds the autocast state of every node, and its grad mode. Changes nothing.

Dynamo hands over regions as pairs of nodes, and subclasses of ``torch.autocast`` as the calls that their
methods make:

    _enter_autocast("xpu", bfloat16, True, None) ... _exit_autocast(enter)
    set_autocast_enabled("xpu", True); set_autocast_dtype("xpu", bfloat16) ... set_autocast_enabled("xpu", False)

A region entered and never left lasts to the end of the graph: its exit is behind a graph break. An exit
without its entry in this graph cannot occur, since Dynamo enters the region again behind the break.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.calls_in_graphs import ENTER_AUTOCAST, EXIT_AUTOCAST, IS_AUTOCAST_AVAILABLE
from xpu_amp_dynamo.compat.regions_around import open_regions
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.kept_calls import KeptCall, KeptModules
from xpu_amp_dynamo.lowering.graph.node_kind import GRAD_MODE_CALLS
from xpu_amp_dynamo.lowering.graph.values import value_of

ENTER, EXIT = ENTER_AUTOCAST, EXIT_AUTOCAST
# Calls of inlined subclasses that name a device type first, and those that hold for all device types.
DEVICE_CALLS = (
    torch.set_autocast_enabled,
    torch.set_autocast_dtype,
    torch.is_autocast_enabled,
    torch.get_autocast_dtype,
    IS_AUTOCAST_AVAILABLE,
)
GLOBAL_CALLS = (
    torch.set_autocast_cache_enabled,
    torch.is_autocast_cache_enabled,
    torch.clear_autocast_cache,
    torch.autocast_increment_nesting,
    torch.autocast_decrement_nesting,
)
_FIELD_SET_BY: dict[Any, str] = {
    torch.set_autocast_enabled: "enabled",
    torch.set_autocast_dtype: "dtype",
    torch.set_autocast_cache_enabled: "cache_enabled",
}


@dataclass
class Regions:
    """The autocast state of each node and at the entry of each kept module, and the nodes that only serve to set it."""

    states: dict[fx.Node, AutocastState] = field(default_factory=dict)
    entries: dict[KeptCall, AutocastState] = field(default_factory=dict)
    markers: list[fx.Node] = field(default_factory=list)


def find_regions(
    graph: fx.Graph, initial_state: AutocastState, device_type: str, modules: KeptModules | None = None
) -> Regions:
    """Return the autocast state of every node of a graph.

    A region around the call of this function counts as one around the graph.

    Args:
        graph: a captured graph.
        initial_state: the state at its entry.
        device_type: the device type whose regions count. Regions of device types that own no tensor of the
            graph are markers too, since they change nothing; those of other device types stay.
        modules: the kept modules, which decide the state of what is inside them.

    Returns:
        The states, and the marker nodes that can be erased once these are known.
    """
    regions = Regions()
    state = initial_state
    before_entry: dict[fx.Node, AutocastState] = {}
    used = _device_types(graph) - {device_type}
    nesting = _Nesting()
    for node in graph.nodes:
        if node.target in GRAD_MODE_CALLS:
            state = dataclasses.replace(state, grad_enabled=bool(node.args[0]))
        outermost = nesting.after(node)
        state = dataclasses.replace(state, outermost=outermost)
        calls = modules.calls_around(node) if modules else ()
        for call in () if node.target in (ENTER, EXIT) else calls:
            regions.entries.setdefault(call, state)
        regions.states[node] = state.inside(calls)
        marked = _device_of_marker(node)
        if marked is None or marked in used:
            continue
        regions.markers.append(node)
        if marked not in (device_type, ""):
            continue
        if node.target is ENTER:
            before_entry[node] = state
            entered_in = modules.calls_around_region(node) if modules else ()
            state = dataclasses.replace(_entered(state, node.args, device_type), entered_in=entered_in)
        elif node.target is EXIT:
            state = dataclasses.replace(before_entry[node.args[0]], grad_enabled=state.grad_enabled)
        else:
            state = dataclasses.replace(_after_call(state, node), entered_in=calls)
    return regions


def captured_in_region(graph: fx.Graph, device_type: str) -> bool:
    """Tell whether a graph or a part of it was captured with autocast of a device type enabled."""
    entries = (node for node in graph.nodes if node.target in (ENTER, torch.set_autocast_enabled))
    return torch.is_autocast_enabled(device_type) or any(node.args[0] == device_type for node in entries)


class _Nesting:
    """Counts the outermost regions, of all device types, as PyTorch counts their nesting to end its cache of casts."""

    def __init__(self) -> None:
        self._depth = open_regions()
        self._outermost = 0

    def after(self, node: fx.Node) -> int:
        """Return the number of the outermost region that is open after a node, or was last."""
        if node.target in (ENTER, torch.autocast_increment_nesting):
            self._outermost += self._depth == 0
            self._depth += 1
        elif node.target in (EXIT, torch.autocast_decrement_nesting):
            self._depth -= 1
        return self._outermost


def _device_of_marker(node: fx.Node) -> str | None:
    """Return the device type that a marker is about, ``""`` for all of them, None if the node is no marker."""
    if node.op != "call_function":
        return None
    if node.target is EXIT:
        enter = node.args[0]
        assert isinstance(enter, fx.Node)
        return str(enter.args[0])
    if node.target is ENTER or node.target in DEVICE_CALLS:
        return str(node.args[0])
    return "" if node.target in GLOBAL_CALLS else None


def _entered(state: AutocastState, args: tuple[Any, ...], device_type: str) -> AutocastState:
    """Return the state inside a region, given the arguments ``(device_type, dtype, enabled, cache_enabled)``."""
    _, dtype, enabled, cache_enabled = args
    return AutocastState(
        enabled=enabled,
        dtype=torch.get_autocast_dtype(device_type) if dtype is None else dtype,
        cache_enabled=state.cache_enabled if cache_enabled is None else cache_enabled,
        in_region=True,
        grad_enabled=state.grad_enabled,
    )


def _after_call(state: AutocastState, node: fx.Node) -> AutocastState:
    """Return the state after one of the calls that an inlined subclass makes."""
    field_set = _FIELD_SET_BY.get(node.target)
    value: Any = node.args[-1] if node.args else None
    return dataclasses.replace(state, in_region=True, **{field_set: value}) if field_set else state


def _device_types(graph: fx.Graph) -> set[str]:
    """Return the device types of all tensors that the graph's nodes hold."""
    values = map(value_of, graph.nodes)
    return {value.device.type for value in values if isinstance(value, torch.Tensor)}
