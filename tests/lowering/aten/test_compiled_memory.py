"""Compiled programs: results, inputs and gradients share memory as in eager code, and have the same strides."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from xpu_amp_dynamo.lowering import pipeline

BFLOAT16 = torch.bfloat16


def tell(function, inputs):
    """Run a function; return values and strides of results and inputs, and which of them a write to each changes."""
    results = function(*inputs)
    ends = [*inputs, *results]
    told = [(end.clone(), end.stride()) for end in ends]
    changed = []
    for end in ends:
        before = [each.clone() for each in ends]
        end.detach().add_(1)
        changed.append([i for i, (a, b) in enumerate(zip(before, ends, strict=True)) if not torch.equal(a, b)])
    return told, changed


def check(function, *inputs, stock=False, **options):
    """Compare a compiled function with eager code, or with what Inductor alone makes of it."""
    ways = {"ours": torch.compile(function, backend="xpu_amp", fullgraph=True, options=options)}
    ways["expected"] = torch.compile(function, fullgraph=True) if stock else function
    told = {way: tell(called, [value.clone() for value in inputs]) for way, called in ways.items()}
    assert told["ours"][1] == told["expected"][1]
    for (value, strides), (expected, expected_strides) in zip(told["ours"][0], told["expected"][0], strict=True):
        assert strides == expected_strides
        assert torch.equal(value, expected)


def test_casts_are_memory_of_their_own():
    def program(x, y):
        wide, v = x.float(), y.exp()
        folded = wide.bfloat16(), wide.t().bfloat16(), wide.view(-1).bfloat16(), x[0].float().bfloat16()
        placed = v[:2].bfloat16(), v[1:].bfloat16(), v.view(-1).bfloat16(), y[:2].bfloat16(), y.t().bfloat16()
        expanded = v[:, None].expand(3, 2, 4).bfloat16()
        strided = torch.as_strided(x[:, :2].float().t().bfloat16(), (6,), (1,)) + 0
        return *folded, *placed, expanded, strided, torch.cat([wide[:1], wide[1:]]).bfloat16()

    x = torch.arange(12.0).reshape(3, 4)
    check(program, x.bfloat16(), x / 12, enabled=False)


def test_reads_stay_in_front_of_writes():
    def program(x, y):
        first, second, third = x.float().bfloat16(), x[0].float().bfloat16(), x.float().t().bfloat16()
        wide, swapped = x.float(), y.float()
        x.copy_(swapped)
        y.copy_(wide)
        x.mul_(2)
        return first, second, third, torch.cat([wide[:1], wide[1:]]).bfloat16(), wide.flip(0).bfloat16() + 1

    x = torch.arange(12.0).reshape(3, 4)
    check(program, x.bfloat16(), x.bfloat16() + 50, enabled=False)


def test_gradients_do_not_share_memory():
    def program(a, b, c, d, e):
        zero = torch.zeros(1, 4)
        rows = torch.cat([d.float(), zero]) + torch.cat([zero, e.float()])
        return a.float() + b.float().t() + c.float().reshape(a.shape) + rows

    def gradients(function):
        def run(*inputs):
            leaves = [value.requires_grad_() for value in inputs]
            return torch.autograd.grad((function(*leaves) * torch.arange(12.0).reshape(3, 4)).sum(), leaves)

        return run

    shapes = ((3, 4), (4, 3), (12,), (2, 4), (2, 4))
    inputs = [torch.randn(shape).bfloat16() for shape in shapes]
    told = []
    for compiled in (program, torch.compile(program, backend="xpu_amp", options={"enabled": False})):
        told.append(tell(gradients(compiled), [value.clone() for value in inputs]))
    (eager, eager_changed), (ours, changed) = told
    assert changed == eager_changed == [[i] for i in range(10)]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(eager, ours, strict=True))


def test_a_backward_keeps_casts_whose_source_the_caller_writes_to():
    def program(x, w):
        return x.float().t().bfloat16() @ w

    gradients: list[Any] = []
    for function in (program, torch.compile(program, backend="xpu_amp", options={"enabled": False})):
        x, w = torch.ones(4, 4).bfloat16(), torch.full((4, 4), 2.0).bfloat16().requires_grad_()
        result = function(x, w).sum()
        x.fill_(9)
        result.backward()
        gradients.append(w.grad)
    assert torch.equal(*gradients)


def test_views_that_only_a_dense_cast_has():
    def program(x, y):
        chunk, keys = y.chunk(3, -1)[0].float(), y[:, None].expand(2, 3, 6, 12).float()
        return (
            x[:, :4].float().view(-1).bfloat16() + 0,
            x[:1].expand(4, 8).float().view(32).bfloat16() + 0,
            chunk.flatten(1).to(y.dtype).relu(),
            keys.reshape(6, 6, 12).to(y.dtype).sin(),
            x[::2].float().view(-1).to(x.dtype).sin(),
            torch.mm(chunk.flatten(1), torch.ones(24, 2)).bfloat16(),
        )

    check(
        program,
        torch.arange(32.0).reshape(4, 8).bfloat16(),
        torch.randn(2, 6, 12).bfloat16(),
        stock=True,
        enabled=False,
    )


def test_a_pass_that_breaks_a_promise_stops_the_compilation(monkeypatch):
    def share(graph):
        (output,) = graph.find_nodes(op="output")
        first = output.args[0][0]
        output.args = ((first,) * len(output.args[0]),)
        return True

    monkeypatch.setattr("xpu_amp_dynamo.lowering.pipeline.JOINT", (*pipeline.JOINT, share))
    with pytest.raises(Exception, match=r"after share, .* shares other memory than before"):
        torch.compile(lambda x: (x.exp(), x.sin()), backend="xpu_amp")(torch.randn(3))
