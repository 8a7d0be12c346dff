"""Broken graphs are found out."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from tests.support.captured_graphs import context_of
from xpu_amp_dynamo.errors import LoweringError
from xpu_amp_dynamo.lowering.captured.verify import verify
from xpu_amp_dynamo.lowering.graph.casting import insert_cast
from xpu_amp_dynamo.lowering.graph.values import set_value


def test_verification_catches_a_broken_graph():
    graph = fx.Graph()
    x = graph.placeholder("x")
    set_value(x, torch.zeros(2, 2))
    y = graph.call_function(torch.mm, (x, x))
    set_value(y, torch.zeros(2, 2))
    graph.output(y)
    gm = fx.GraphModule({}, graph)
    context = context_of(gm)
    context.states.update(dict.fromkeys(graph.nodes, context.initial_state))
    with pytest.raises(LoweringError, match=r"mm wants torch.bfloat16 and has \[torch.float32"):
        verify(gm, context)
    context.states.clear()
    insert_cast(x, torch.float32, y)
    with pytest.raises(LoweringError, match="cast to the dtype it comes from"):
        verify(gm, context)
    graph.erase_node(next(node for node in graph.nodes if node.op == "call_method"))
    context.recorded[y] = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(LoweringError, match="was recorded as"):
        verify(gm, context)
