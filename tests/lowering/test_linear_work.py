"""The work of a lowering grows as its graph does. Counted in function calls, since a timing is no test."""

from __future__ import annotations

import cProfile

import pytest
import torch
from torch import nn

import xpu_amp_dynamo
from tests.support.captured_graphs import run_changed


@pytest.fixture(autouse=True)
def verified_passes():
    """Count what users pay: without the thorough verification of other tests."""


def chain_of_layers(count):
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(count))), torch.randn(2, 4)


class Writes(nn.Module):
    """Writes to one memory again and again, of which views are read between."""

    def __init__(self, count):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(count))

    def forward(self, x):
        kept = torch.zeros_like(x)
        for layer in self.layers:
            kept[0] += layer(x)[0]
            x = layer(kept).relu_()
        return x


def chain_of_writes(count):
    return Writes(count), torch.randn(2, 4)


def chain_of_cells(count):
    cell = nn.GRUCell(4, 4)

    def program(x):
        for _ in range(count // 4):
            x = cell(x, x)
        return x

    return program, torch.randn(2, 4)


def calls_of_lowering(program, x) -> int:
    profile = cProfile.Profile()

    def lower(gm, example_inputs):
        profile.enable()
        xpu_amp_dynamo.lower(gm, example_inputs)
        profile.disable()

    with torch.no_grad():
        run_changed(lower, program, x, fullgraph=True)
    return sum(int(entry.callcount) for entry in profile.getstats())


@pytest.mark.parametrize("chain", [chain_of_layers, chain_of_writes, chain_of_cells])
def test_twice_the_graph_is_twice_the_work(chain):
    calls_of_lowering(*chain(8))  # fills caches
    small, large = calls_of_lowering(*chain(24)), calls_of_lowering(*chain(48))
    assert small > 1000
    assert large <= 2.2 * small
