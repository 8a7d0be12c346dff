"""Concatenations in the lower dtype that all their uses cast to."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline

from tests.support.aten_graphs import BFLOAT16, FLOAT16, FLOAT32, convert, graph_of, run_pass, text_of
from xpu_amp_dynamo.lowering.aten.narrow_concatenations import narrow_concatenations


def test_a_promoted_concatenation_that_is_cast_down_again():
    def program(x, y):
        joined = torch.cat([convert(x, FLOAT32), y.exp()], 1)
        return convert(joined, BFLOAT16) + 1, convert(joined.t(), BFLOAT16).relu()

    gm = graph_of(program, (3, 4), (3, 5), dtypes=[BFLOAT16, FLOAT32])
    assert run_pass(narrow_concatenations, gm)
    assert_expected_inline(
        text_of(gm),
        """\
exp = aten.exp(y_1)
convert_default = prims.convert(exp, bfloat16)
cat_default = aten.cat([x_1, convert_default], 1)
add = aten.add.Tensor(cat_default, 1)
t_default = aten.t(cat_default)
relu = aten.relu(t_default)
return (add, relu)""",
    )
    assert not run_pass(narrow_concatenations, gm)


def test_in_front_of_a_convolution_the_members_are_laid_out_as_inductor_wants_them():
    def program(x, y, weight):
        joined = torch.cat([convert(x, FLOAT32), y.exp()], 1)
        return torch.ops.aten.convolution(convert(joined, BFLOAT16), weight, None, [1], [0], [1], False, [0], 1)

    shapes = ((2, 3, 4, 4), (2, 3, 4, 4), (2, 6, 1, 1))
    gm = graph_of(program, *shapes, dtypes=[BFLOAT16, FLOAT32, BFLOAT16])
    assert run_pass(narrow_concatenations, gm)
    (clone,) = gm.graph.find_nodes(op="call_function", target=torch.ops.aten.clone.default)
    assert clone.meta["val"].is_contiguous(memory_format=torch.channels_last)
    assert [node.target for node in clone.users] == [torch.ops.aten.cat.default]


@pytest.mark.parametrize(
    "program",
    [
        lambda x, y: torch.cat([convert(x, FLOAT32), y]),
        lambda x, y: ((joined := torch.cat([convert(x, FLOAT32), y])) + 1, convert(joined, BFLOAT16) + 1),
        lambda x, y: (
            convert(joined := torch.cat([convert(x, FLOAT32), y]), BFLOAT16) + 1,
            convert(joined, FLOAT16) + 1,
        ),
        lambda x, y: (convert(joined := torch.cat([convert(x, FLOAT32), y]), BFLOAT16) + 1, joined.t() + 1),
        lambda x, y: convert(torch.cat([convert(x, torch.float64), y.double()]), BFLOAT16) + 1,
    ],
)
def test_concatenations_with_a_wide_use_stay(program):
    gm = graph_of(program, (3, 4), (3, 4), dtypes=[BFLOAT16, FLOAT32])
    before = text_of(gm)
    assert not run_pass(narrow_concatenations, gm)
    assert text_of(gm) == before
