"""A graph whose lowering fails."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import xpu_amp_dynamo
from tests.support.captured_graphs import run_changed


def test_a_lowering_that_raises_leaves_the_graph_as_it_was():
    def program(x, w):
        h = torch.relu(x @ w).add_(1)
        return F.binary_cross_entropy(torch.sigmoid(h), w)

    def is_kept(gm, example_inputs):
        before = gm.code, [dict(node.meta) for node in gm.graph.nodes], list(vars(gm))
        with pytest.raises(xpu_amp_dynamo.errors.BannedOpError):
            xpu_amp_dynamo.lower(gm, example_inputs, policy="torch")
        gm.recompile()
        return before == (gm.code, [dict(node.meta) for node in gm.graph.nodes], list(vars(gm)))

    _, kept = run_changed(is_kept, program, torch.rand(4, 4), torch.rand(4, 4))
    assert kept == [True]
