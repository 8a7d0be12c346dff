"""What may not stand in for a cast: memory that something sees, other strides where they matter."""

from __future__ import annotations

import pytest
import torch

from tests.support.aten_graphs import BFLOAT16, FLOAT16, FLOAT32, convert, graph_of, run_pass
from xpu_amp_dynamo.lowering.aten.fold_casts import fold_casts
from xpu_amp_dynamo.lowering.aten.group_casts import group_casts
from xpu_amp_dynamo.lowering.aten.narrow_concatenations import narrow_concatenations
from xpu_amp_dynamo.lowering.aten.narrow_operands import narrow_operands
from xpu_amp_dynamo.lowering.aten.place_casts import place_casts
from xpu_amp_dynamo.lowering.aten.widen_results import widen_results


def wide(x):
    return convert(x, FLOAT32)


def narrow(x):
    return convert(x, BFLOAT16)


def returned_with_its_source(x):
    y = x.exp()
    return y, narrow(wide(y).t()) + 1


def written_later(x):
    snapshot = narrow(wide(x)[0].clone()) + 1
    x.zero_()
    return snapshot


def written_in_between(x):
    widened = wide(x)
    x.zero_()
    return narrow(widened.flip(0)) + 1


def written_itself(x):
    y = narrow(wide(x.exp()).t())
    y.zero_()
    return y + 1


@pytest.mark.parametrize(
    "program",
    [
        lambda x: narrow(wide(x)),
        lambda x: narrow(wide(x).t()) + 1,  # a backward may keep what it reads
        lambda x: narrow(wide(x.exp())),
        lambda x: narrow(wide(x.exp()).t()).unsqueeze(0),
        lambda x: [narrow(half) for half in wide(x.exp()).split(2)],
        lambda x: narrow(wide(x.exp()).t()).as_strided((3,), (1,)) + 1,
        lambda x: torch.as_strided_scatter(narrow(wide(x.exp()).t()), x[0], (4,), (1,)) + 1,
        lambda x: narrow(wide(x.exp())[:, :2]).view(-1) + 1,
        lambda x: narrow(wide(x.exp()[:1].expand(3, 4)).view(-1)) + 1,
        lambda x: torch.ops._c10d_functional.wait_tensor(narrow(wide(x.exp()).t())) + 1,
        returned_with_its_source,
        written_later,
        written_in_between,
        written_itself,
    ],
)
def test_a_value_that_was_widened_does_not_stand_in(program):
    assert not run_pass(fold_casts, graph_of(program, (3, 4), dtypes=[BFLOAT16]))


@pytest.mark.parametrize(
    "program",
    [
        lambda x: narrow(wide(x).flip(0)),
        lambda x: narrow(torch.cat([wide(x), wide(x.exp())])).t(),
        lambda x: (narrow(copied := wide(x).flip(0)), narrow(copied.t())),
        lambda x: narrow(wide(x.exp())[:, :2].contiguous().view(-1)).as_strided((2,), (1,), 1),
        lambda x: narrow(wide(x.exp())[:, :2]) + 1,
        lambda x: narrow(wide(x.exp())[1:2]) @ x.t(),
    ],
)
def test_copies_and_hidden_views_stand_in(program):
    assert run_pass(fold_casts, graph_of(program, (3, 4), dtypes=[BFLOAT16]))


def test_an_op_of_another_library_relies_on_strides():
    with torch.library._scoped_library("optimiser_test", "DEF") as library:
        library.define("first(Tensor x) -> Tensor")
        library.impl("first", lambda x: x.as_strided((1,), (1,)).clone(), "CompositeExplicitAutograd")
        gm = graph_of(lambda x: torch.ops.optimiser_test.first(narrow(wide(x.exp()).t())), (3, 4), dtypes=[BFLOAT16])
        assert not run_pass(fold_casts, gm)


def cast_written_value(x):
    y = x.exp()
    first = narrow(y.t()) + 1
    y.zero_()
    return first, narrow(y) + 1


@pytest.mark.parametrize(
    "program",
    [
        lambda x: (narrow(x[:2]), narrow(x[1:])),
        lambda x: (narrow(x), narrow(x.t())),
        lambda x: narrow(x.exp().unsqueeze(1).expand(3, 2, 4)),
        lambda x: narrow(x.exp()[:2]).view(-1)[:4] + narrow(x.exp()[1:].t())[:, 1].sum(),
        lambda x: narrow((y := x.exp())[:, :3]).view(-1).sum() + narrow(y[:, 1:]).sum(),
        cast_written_value,
    ],
)
def test_views_of_one_cast_do_not_stand_in(program):
    assert not run_pass(place_casts, graph_of(program, (3, 4)))


def test_a_returned_cast_stays_beside_the_one_that_others_share():
    def program(x):
        y = x.exp()
        return narrow(y), narrow(y.t()) @ narrow(y), narrow(y)[0] + 1

    gm = graph_of(program, (3, 4))
    assert run_pass(place_casts, gm)
    (output,) = gm.graph.find_nodes(op="output")
    assert output.args[0][0].target == convert
    assert list(output.args[0][0].users) == [output]


@pytest.mark.parametrize(
    "program",
    [
        lambda x, y: (narrow(joined := torch.cat([wide(x), y])), narrow(joined.t())),
        lambda x, y: narrow(torch.cat([wide(x), y])[:, :2]).view(-1) + 1,
        lambda x, y: narrow(torch.cat([wide(x), y])[1:]).as_strided((3,), (1,)) + 1,
    ],
)
def test_concatenations_whose_casts_stay(program):
    assert not run_pass(narrow_concatenations, graph_of(program, (3, 4), (3, 4), dtypes=[BFLOAT16, FLOAT32]))


def test_products_whose_operands_cannot_be_repeated_or_are_written():
    def viewed(x):
        return wide(x.narrow(1, 0, 2)).view(3, 2) @ wide(x.narrow(1, 0, 2)).view(2, 3)

    def written(x):
        widened = wide(x)
        x.zero_()
        return widened.flip(0) @ widened.t()

    for program in (viewed, written):
        gm = graph_of(program, (3, 4), dtypes=[FLOAT16], device="xpu")
        assert not run_pass(narrow_operands, gm)
        assert not gm.graph.find_nodes(op="call_function", target=torch.ops.aten.mm.dtype)


def test_a_part_of_a_product_is_not_returned_in_the_memory_of_all():
    gm = graph_of(lambda x: wide((x @ x).select(0, 1)), (3, 3), dtypes=[BFLOAT16], device="xpu")
    assert not run_pass(widen_results, gm)


def test_casts_do_not_move_across_writes():
    def inputs(x, w):
        x.zero_()
        return narrow(x) @ narrow(w), narrow(w).t() @ narrow(w)

    def results(x, w):
        product = x @ w
        first = narrow(product)
        product.zero_()
        return first, narrow(w @ x)

    for program in (inputs, results):
        gm = graph_of(program, (3, 3), (3, 3), device="xpu")
        run_pass(group_casts, gm)
        copies = gm.graph.find_nodes(op="call_function", target=torch.ops.aten._foreach_copy.default)
        grouped = [source.name for copied in copies for source in copied.args[1]]
        assert set(grouped) <= {"w_1"}
