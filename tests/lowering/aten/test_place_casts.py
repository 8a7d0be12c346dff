"""One cast for all views of a value."""

from __future__ import annotations

import pytest
from expecttest import assert_expected_inline

from tests.support.aten_graphs import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    convert,
    graph_of,
    run_pass,
    symbolic_graph_of,
    text_of,
)
from xpu_amp_dynamo.lowering.aten.place_casts import place_casts


def halves(x):
    y = x.exp()
    first, second = y.chunk(2)
    return convert(first.t(), BFLOAT16) @ convert(second, BFLOAT16), y + 1


def test_views_share_a_cast():
    gm = graph_of(halves, (4, 3))
    assert run_pass(place_casts, gm)
    assert_expected_inline(
        text_of(gm),
        """\
exp = aten.exp(x_1)
convert_default = prims.convert(exp, bfloat16)
split_tensor = aten.split.Tensor(convert_default, 2)
getitem_2 = split_tensor[0]
getitem_3 = split_tensor[1]
t_default = aten.t(getitem_2)
mm = aten.mm(t_default, getitem_3)
add = aten.add.Tensor(exp, 1)
return (mm, add)""",
    )
    assert not run_pass(place_casts, gm)


def test_a_cast_of_an_expanded_value():
    gm = graph_of(lambda x: convert(x.unsqueeze(1).expand(4, 8, 3), BFLOAT16) + 1, (4, 3))
    assert run_pass(place_casts, gm)
    assert_expected_inline(
        text_of(gm),
        """\
convert_default = prims.convert(x_1, bfloat16)
unsqueeze_default = aten.unsqueeze(convert_default, 1)
expand_default = aten.expand(unsqueeze_default, [4, 8, 3])
add = aten.add.Tensor(expand_default, 1)
return add""",
    )


def test_symbolic_sizes():
    def program(x):
        return convert(x.t(), BFLOAT16) @ convert(x[: x.shape[0] // 2], BFLOAT16).t().reshape(x.shape[0], -1)

    gm = symbolic_graph_of(program, (4, 4))
    assert run_pass(place_casts, gm)
    casts = gm.graph.find_nodes(op="call_function", target=convert)
    assert [cast.args[0].op for cast in casts] == ["placeholder"]


@pytest.mark.parametrize(
    "program",
    [
        lambda x: convert(x.t(), BFLOAT16) + 1,
        lambda x: convert(x[:1], BFLOAT16) + convert(x[1:2], BFLOAT16),
        lambda x: (convert(x, BFLOAT16) + 1, convert(x.t(), FLOAT16) + 1),
        lambda x: convert(x.unsqueeze(1).expand(4, 8, 3), FLOAT32) + 1,
        lambda x: convert(x.exp(), BFLOAT16) @ convert(x.exp().t(), BFLOAT16),
    ],
)
def test_casts_that_would_touch_more_stay(program):
    gm = graph_of(program, (4, 3))
    before = text_of(gm)
    assert not run_pass(place_casts, gm)
    assert text_of(gm) == before


def test_unknown_sizes_stay():
    def program(x, y):
        return convert(x[: y.shape[0]], BFLOAT16) + 1, convert(x[: y.shape[1]], BFLOAT16) + 1

    gm = symbolic_graph_of(program, (8, 3), (5, 4))
    before = text_of(gm)
    assert not run_pass(place_casts, gm)
    assert text_of(gm) == before
