"""Passes take no stack for long graphs, and time in proportion to their length."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests.support.aten_graphs import BFLOAT16, FLOAT32, convert, graph_of
from xpu_amp_dynamo.lowering import aten
from xpu_amp_dynamo.lowering.aten.fold_casts import fold_casts
from xpu_amp_dynamo.lowering.pipeline import COMPILED, JOINT

FOLDER = str(Path(aten.__path__[0]))


def shifts(count):
    def program(x):
        value = convert(x, FLOAT32)
        for _ in range(count):
            value = torch.cat([value.narrow(0, 1, 2), value.narrow(0, 0, 1)])
        return convert(value, BFLOAT16) @ x.t(), value @ value.t()

    return program, [(3, 3)]


def growing_cache(count):
    def program(x):
        cache = convert(x, FLOAT32)
        for _ in range(count):
            cache = torch.cat([cache, convert(x, FLOAT32)])
        return convert(cache, BFLOAT16) @ x.t()

    return program, [(1, 3)]


def views(count):
    def program(x):
        value = convert(x.exp(), FLOAT32)
        for _ in range(count):
            value = value.t()
        wide = value.exp()
        for _ in range(count):
            wide = wide.t()
        return convert(value, BFLOAT16) @ convert(wide, BFLOAT16), convert(wide.t(), BFLOAT16) + 1

    return program, [(3, 3)]


def casts_of_one_value(count):
    def program(x):
        value, result = x.exp(), x @ x
        returned = []
        for _ in range(count):
            value, result = value.t(), result.t()
            returned += [convert(convert(value, FLOAT32).exp(), BFLOAT16) @ x, convert(result, FLOAT32)]
        return returned

    return program, [(3, 3)]


def many_inputs(count):
    def program(*inputs):
        return [
            convert(convert(x, FLOAT32).t(), BFLOAT16) @ convert(convert(x, FLOAT32).exp(), BFLOAT16) for x in inputs
        ]

    return program, [(3, 3)] * count


def calls_of(run, graph):
    """Count the calls of Python functions of the optimiser that a pass makes."""
    count = 0

    def profile(frame, event, _):
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(FOLDER)

    sys.setprofile(profile)
    try:
        run(graph)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("programs", [shifts, growing_cache, views, casts_of_one_value, many_inputs])
def test_calls_grow_with_the_length_of_the_graph(programs):
    counted = []
    for length in (75, 300):
        program, shapes = programs(length)
        gm = graph_of(program, *shapes, dtypes=[BFLOAT16] * len(shapes), device="xpu")
        counted.append([calls_of(run, gm.graph) for run in (*JOINT, *COMPILED)])
        gm.graph.lint()
    short, long = counted
    assert max(long) > 300, "the passes looked at nothing"
    assert all(b <= 4.4 * a + 100 for a, b in zip(short, long, strict=True)), counted


def test_a_long_chain_takes_no_stack():
    program, shapes = growing_cache(600)
    gm = graph_of(program, *shapes, dtypes=[BFLOAT16])
    assert fold_casts(gm.graph)
    assert len(gm.graph.find_nodes(op="call_function", target=convert)) == 0
