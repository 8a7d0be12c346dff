"""The autocast state of every node, and which nodes only set it."""

from __future__ import annotations

import torch
from torch import fx
from torch.amp import autocast_mode

from xpu_amp_dynamo.lowering.captured.find_regions import find_regions
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState

OFF = AutocastState(False, torch.bfloat16)


def state_at(graph, name, device_type="cpu"):
    regions = find_regions(graph, OFF, device_type)
    return next(state for node, state in regions.states.items() if node.name == name)


def test_find_regions_reads_pairs_and_lets_open_ones_run_on():
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.call_function(torch.relu, (x,)).name = "before"
    outer = graph.call_function(autocast_mode._enter_autocast, ("cpu", torch.float16, True, None))
    inner = graph.call_function(autocast_mode._enter_autocast, ("cpu", None, False, False))
    graph.call_function(torch.relu, (x,)).name = "inside"
    graph.call_function(autocast_mode._exit_autocast, (inner,))
    other = graph.call_function(autocast_mode._enter_autocast, ("cuda", torch.bfloat16, False, None))
    graph.call_function(torch.relu, (x,)).name = "open"
    assert state_at(graph, "before") == OFF
    assert state_at(graph, "inside") == AutocastState(False, torch.bfloat16, False, outermost=1, in_region=True)
    assert state_at(graph, "open") == AutocastState(True, torch.float16, outermost=1, in_region=True)
    assert {outer, inner, other} < set(find_regions(graph, OFF, "cpu").markers)


def test_regions_of_another_device_type_with_tensors_stay():
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["example_value"] = torch.empty(2, device="meta")
    graph.call_function(autocast_mode._enter_autocast, ("meta", torch.bfloat16, True, None))
    assert find_regions(graph, OFF, "cpu").markers == []
