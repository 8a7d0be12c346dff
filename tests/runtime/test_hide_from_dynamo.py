"""Code that Dynamo leaves uncompiled runs in a region as under stock autocast: our runtime adds no graphs."""

from __future__ import annotations

import gc

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import xpu_amp_dynamo
from xpu_amp_dynamo.ops.packed_linear import can_pack
from xpu_amp_dynamo.runtime import installation


class Tagger(torch.nn.Module):
    """A recurrent layer, which Dynamo skips."""

    def __init__(self, kind):
        super().__init__()
        self.recurrent, self.out = kind(8, 8, batch_first=True), torch.nn.Linear(8, 4)

    def forward(self, x):
        return self.out(self.recurrent(x)[0])


class Experts(torch.nn.Module):
    """A loop that depends on data, in a region of its own."""

    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Linear(8, 3)
        self.experts = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            chosen = self.gate(x).argmax(-1)
            y = torch.zeros_like(x)
            for number, expert in enumerate(self.experts):
                if (chosen == number).any():
                    y[chosen == number] = expert(x[chosen == number]).to(y.dtype)
        return torch.cat([y, y + 1])


def graphs_and_breaks(model, x):
    """Run a model twice in a region, compiled, with weights that die; count graphs and graph breaks."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            compiled(x)
    gc.collect()
    return counter.frame_count, sum(torch._dynamo.utils.counters["graph_break"].values())


# Dynamo looks at the gradients of tensors that cross a graph break (torch 2.15.0).
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda: Tagger(torch.nn.LSTM),
            marks=pytest.mark.skipif(not can_pack(torch.bfloat16), reason="oneDNN has no bfloat16 LSTM here"),
        ),
        lambda: Tagger(torch.nn.GRU),
        Experts,
    ],
    ids=["LSTM", "GRU", "experts"],
)
def test_no_more_graphs_than_under_stock_autocast(make):
    x = torch.randn(2, 5, 8)
    model = make()
    stock = graphs_and_breaks(model, x)
    xpu_amp_dynamo.install(device_type="cpu")
    assert graphs_and_breaks(model, x) == stock
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype in (torch.bfloat16, torch.float32)


def test_entering_the_first_region_is_not_compiled():
    """The frame that enters it is one that Dynamo skips."""

    def program(x):
        for _ in range(2):
            with xpu_amp_dynamo.autocast("cpu"):
                torch._dynamo.graph_break()
                x = x @ x
        return x

    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(program, backend=CompileCounter())
    assert compiled(torch.eye(4)).dtype is torch.bfloat16
    assert "cpu" in installation._installations
    assert torch._dynamo.utils.counters["frames"]["total"] == 1
