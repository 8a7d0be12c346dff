"""Graphs without recorded values, and those whose values cannot be computed."""

from __future__ import annotations

import pytest
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

import xpu_amp_dynamo
from xpu_amp_dynamo.errors import LoweringError


def test_symbolically_traced_graph():
    gm = fx.symbolic_trace(lambda x, w: torch.relu(x @ w))
    x, w = torch.randn(2, 3), torch.randn(3, 4)
    assert xpu_amp_dynamo.lower(gm, [x, w]) is gm
    assert torch.equal(gm(x, w), torch.relu(x.bfloat16() @ w.bfloat16()).float())


def test_wrong_number_of_example_inputs_is_refused():
    gm = fx.symbolic_trace(lambda x, w: x @ w)
    before = gm.code
    with pytest.raises(LoweringError, match="2 placeholders and 1 example inputs"):
        xpu_amp_dynamo.lower(gm, [torch.randn(2, 2)])
    assert gm.code == before


def test_an_unused_input_needs_no_value():
    gm = fx.symbolic_trace(lambda x, w, unused: x @ w)
    x, w = torch.randn(2, 3), torch.randn(3, 4)
    with FakeTensorMode() as mode:
        for node, value in zip(gm.graph.find_nodes(op="placeholder"), (x, w), strict=False):
            node.meta["example_value"] = mode.from_tensor(value)
    xpu_amp_dynamo.lower(gm, [])
    assert torch.equal(gm(x, w, None), (x.bfloat16() @ w.bfloat16()).float())


def test_module_calls_are_refused():
    gm = fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    with pytest.raises(LoweringError, match="calls the module '0'"):
        xpu_amp_dynamo.lower(gm, [torch.randn(2, 2)])
