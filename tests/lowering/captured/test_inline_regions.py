"""Regions that export wraps into graphs of their own."""

from __future__ import annotations

import torch

from tests.support.captured_graphs import context_of
from xpu_amp_dynamo.lowering.captured.find_regions import ENTER, EXIT
from xpu_amp_dynamo.lowering.captured.inline_regions import inline_regions


class Model(torch.nn.Module):
    """Opens a region inside another."""

    def forward(self, x):
        with torch.autocast("cpu", torch.float16):
            y = x.relu()
            with torch.autocast("cpu", enabled=False):
                y = y + x
        return y.abs()


def test_nested_regions_become_pairs_of_nodes():
    gm = torch.export.export(Model(), (torch.ones(2, 4),)).graph_module
    assert inline_regions(gm, context_of(gm))
    gm.graph.lint()
    calls = [node for node in gm.graph.nodes if node.op == "call_function"]
    aten = torch.ops.aten
    enter, relu, enter_inside, add, leave_inside, leave, _ = calls
    assert [node.target for node in calls] == [
        *(ENTER, aten.relu.default, ENTER, aten.add.Tensor, EXIT, EXIT, aten.abs.default)
    ]
    assert [node.args for node in (enter, enter_inside)] == [
        ("cpu", torch.float16, True, False),
        ("cpu", torch.float16, False, False),
    ]
    assert [node.args for node in (leave_inside, leave)] == [(enter_inside,), (enter,)]
    assert add.args[0] is relu
    assert list(gm.children()) == []
    assert not inline_regions(gm, context_of(gm))
