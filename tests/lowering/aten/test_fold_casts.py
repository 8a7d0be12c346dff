"""Folding of casts that bring back a value which is there already."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline

from tests.support.aten_graphs import BFLOAT16, FLOAT16, FLOAT32, convert, graph_of, run_pass, text_of
from xpu_amp_dynamo.lowering.aten.fold_casts import fold_casts


def test_a_chain_across_layout_ops():
    def program(x):
        return convert(convert(x.exp(), FLOAT32).t().reshape(2, 6)[0], BFLOAT16) + 1

    gm = graph_of(program, (3, 4), dtypes=[BFLOAT16])
    assert run_pass(fold_casts, gm)
    assert_expected_inline(
        text_of(gm),
        """\
exp = aten.exp(x_1)
t_default = aten.t(exp)
clone_default = aten.clone(t_default, memory_format = contiguous_format)
_unsafe_view_default = aten._unsafe_view(clone_default, [2, 6])
select_int = aten.select.int(_unsafe_view_default, 0, 0)
add = aten.add.Tensor(select_int, 1)
return add""",
    )


def test_the_wide_value_stays_for_its_other_uses():
    def program(x):
        wide = convert(x.exp(), FLOAT32).t()
        return convert(wide, BFLOAT16).exp(), wide.exp()

    gm = graph_of(program, (3, 4), dtypes=[BFLOAT16])
    assert run_pass(fold_casts, gm)
    assert_expected_inline(
        text_of(gm),
        """\
exp = aten.exp(x_1)
convert = prims.convert(exp, float32)
t = aten.t(convert)
t_default = aten.t(exp)
exp_1 = aten.exp(t_default)
exp_2 = aten.exp(t)
return (exp_1, exp_2)""",
    )


def test_a_cache_that_was_empty():
    def program(empty, new):
        joined = torch.cat([empty, convert(new, FLOAT32)])
        return joined, convert(convert(joined, BFLOAT16), FLOAT32) * 2

    gm = graph_of(program, (0, 4), (3, 4), dtypes=[FLOAT32, BFLOAT16])
    assert run_pass(fold_casts, gm)
    assert_expected_inline(
        text_of(gm),
        """\
convert = prims.convert(new_1, float32)
convert_default = prims.convert(empty_1, bfloat16)
cat = aten.cat([empty_1, convert])
cat_default = aten.cat([convert_default, new_1])
convert_2 = prims.convert(cat_default, float32)
mul = aten.mul.Tensor(convert_2, 2)
return (cat, mul)""",
    )


def test_pieces_of_a_split():
    def program(x):
        first, second = convert(x.exp(), FLOAT32).split(2)
        return convert(first, BFLOAT16) @ x.t(), convert(second, BFLOAT16) + 1

    gm = graph_of(program, (4, 3), dtypes=[BFLOAT16])
    assert run_pass(fold_casts, gm)
    assert_expected_inline(
        text_of(gm),
        """\
exp = aten.exp(x_1)
split_tensor = aten.split.Tensor(exp, 2)
getitem_2 = split_tensor[0]
getitem_3 = split_tensor[1]
t = aten.t(x_1)
mm = aten.mm(getitem_2, t)
add = aten.add.Tensor(getitem_3, 1)
return (mm, add)""",
    )


@pytest.mark.parametrize(
    ("dtype", "program"),
    [
        (FLOAT32, lambda x: convert(convert(x, BFLOAT16), FLOAT32)),
        (FLOAT16, lambda x: convert(convert(x, FLOAT32), BFLOAT16)),
        (BFLOAT16, lambda x: convert(convert(x, FLOAT32) + 1, BFLOAT16)),
        (BFLOAT16, lambda x: convert(convert(x, FLOAT16), BFLOAT16)),
        (BFLOAT16, lambda x: convert(convert(x, torch.float64), BFLOAT16)),
        (BFLOAT16, lambda x: convert(torch.cat([convert(x, FLOAT32), torch.ones(1, 4)]), BFLOAT16)),
    ],
)
def test_casts_that_round_stay(dtype, program):
    gm = graph_of(program, (3, 4), dtypes=[dtype])
    before = text_of(gm)
    assert not run_pass(fold_casts, gm)
    assert text_of(gm) == before
