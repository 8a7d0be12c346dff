"""Models that Dynamo cannot capture in one graph."""

from __future__ import annotations

import pytest
import torch

import xpu_amp_dynamo
from tests.support.comparison import assert_compiled_equals_eager, compile_program, counting_backend

# Dynamo looks at `.grad` of a non-leaf input behind a graph break, torch 2.13.0.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


class Broken(torch.nn.Module):
    """Prints, branches on data and calls a layer that Dynamo must leave alone; notes the dtypes in between."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (torch.nn.Linear(8, 8) for _ in range(3))
        self.dtypes = []

    @torch._dynamo.disable
    def eager_layer(self, x):
        self.dtypes.append(x.dtype)
        y = self.second(x)
        self.dtypes.append(y.dtype)
        return y

    def forward(self, x):
        y = torch.relu(self.first(x))
        print("between two graphs")
        y = self.eager_layer(y)
        y = self.third(y) if y.sum() > 0 else self.third(-y)
        return torch.log_softmax(y, -1)


def test_inside_a_region(capsys):
    model = Broken()
    x = torch.randn(4, 8)

    def region():
        return torch.autocast("cpu", torch.bfloat16)

    outcome = assert_compiled_equals_eager(
        model, [x], region=region, weights=model.parameters(), fullgraph=False, inner_backends=("eager", "aot_eager")
    )
    assert outcome[0].dtype is torch.float32
    assert set(model.dtypes) == {torch.bfloat16}
    assert len(model.dtypes) == 6
    assert capsys.readouterr().out == 3 * "between two graphs\n"


def test_without_a_region_float32_meets_float32_at_every_break(capsys):
    model = Broken()
    x = torch.randn(4, 8)
    reference = model(x)
    model.dtypes.clear()
    for inner_backend in ("eager", "inductor"):
        torch._dynamo.reset()
        with xpu_amp_dynamo.record_lowerings() as reports:
            y = compile_program(model, inner_backend, fullgraph=False)(x)
        assert sum(report.ops["lower_precision"] for report in reports) == 2, "two layers compiled, one left alone"
        assert y.dtype is torch.float32
        torch.testing.assert_close(y, reference, rtol=0.03, atol=0.03)
        assert not torch.equal(y, reference)
    assert set(model.dtypes) == {torch.float32}


def test_no_graph_break_where_eager_backends_have_none():
    """Our backend sees one graph of a program full of what could break it."""

    def program(x, w):
        with xpu_amp_dynamo.autocast("cpu"):
            y = torch.nn.functional.linear(x, w)
            with torch.no_grad():
                scale = y.float().norm()
            y = torch.cat([y, x]) / scale
        with torch.autocast("cpu", torch.float16):
            return torch.stack([row @ w for row in y.unbind()])

    counter, name = counting_backend("eager")
    x, w = torch.randn(4, 8), torch.randn(8, 8)
    actual = compile_program(program, name, enabled=False)(x, w)
    assert counter.frame_count == 1
    assert torch.equal(actual, program(x, w))


def test_code_that_dynamo_leaves_uncompiled_is_reported_once(caplog):
    def program(x, w):
        h = x @ w
        if h.sum() > 0:  # a branch that depends on data
            h = h + 1
        return h @ w

    args = torch.rand(4, 4), torch.rand(4, 4)
    for _ in range(2):
        torch._dynamo.reset()
        torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})(*args)
    (record,) = [r for r in caplog.records if r.name == "xpu_amp_dynamo.dynamo.uncompiled_code"]
    assert f"{__file__}:{program.__code__.co_firstlineno + 2} in program" in record.getMessage()


def test_regions_cover_uncompiled_code_so_that_nothing_is_reported(caplog):
    def program(x, w):
        h = x @ w
        torch._dynamo.graph_break()
        return h @ w

    with xpu_amp_dynamo.autocast("cpu"):
        torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})(
            torch.rand(4, 4), torch.rand(4, 4)
        )
    assert not [r for r in caplog.records if r.name == "xpu_amp_dynamo.dynamo.uncompiled_code"]
