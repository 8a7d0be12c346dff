"""The verifier finds what passes may not do."""

from __future__ import annotations

import pytest
import torch

from tests.support.aten_graphs import BFLOAT16, FLOAT32, convert, graph_of
from xpu_amp_dynamo.errors import LoweringError
from xpu_amp_dynamo.lowering.aten.edit import call_after, casts_in
from xpu_amp_dynamo.lowering.aten.verify import outline_of, verify
from xpu_amp_dynamo.lowering.pipeline import JOINT, optimise

aten = torch.ops.aten


def two_casts(x):
    y = x.exp()
    return convert(y, BFLOAT16), convert(y.t(), BFLOAT16), convert(x, BFLOAT16) + 1


def return_one_for_two(graph):
    first, second, _ = casts_in(graph)
    second.replace_all_uses_with(call_after(first, aten.t.default, (first,), like=second))
    return True


def return_another_layout(graph):
    second = casts_in(graph)[1]
    (source,) = second.all_input_nodes
    contiguous = call_after(source, aten.clone.default, (source,), second, memory_format=torch.contiguous_format)
    second.args = (contiguous, BFLOAT16)
    return True


def return_another_dtype(graph):
    last = casts_in(graph)[2]
    last.args = (last.args[0], FLOAT32)
    return True


def forget_a_value(graph):
    (exp,) = graph.find_nodes(op="call_function", target=aten.exp.default)
    exp.meta["val"] = exp.meta["val"].t()
    return True


def read_before_it_is_made(graph):
    (exp,) = graph.find_nodes(op="call_function", target=aten.exp.default)
    casts_in(graph)[2].append(exp)
    return True


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (return_one_for_two, "after return_one_for_two, .*aten.t.default.* shares other memory"),
        (return_another_layout, "after return_another_layout, .*convert_element_type.* was .* and is"),
        (return_another_dtype, "after return_another_dtype, .*add.* was .*bfloat16.* and is .*float32"),
        (read_before_it_is_made, "after read_before_it_is_made, .* is not well formed"),
        (forget_a_value, "after forget_a_value, .*aten.exp.default.* computes another value than recorded"),
    ],
)
def test_broken_passes(broken, message):
    with pytest.raises(LoweringError, match=message):
        optimise((broken,), graph_of(two_casts, (3, 4)).graph)


def test_an_output_in_the_memory_of_an_input():
    def program(x):
        x.mul_(2)
        return x[0], convert(x, BFLOAT16)

    graph = graph_of(program, (3, 4)).graph
    before = outline_of(graph)
    assert before.sharing == (0, 0, 2)
    (cast,) = casts_in(graph)
    (source,) = cast.all_input_nodes
    cast.replace_all_uses_with(source)
    with pytest.raises(LoweringError, match="shares other memory"):
        verify(graph, before, "a pass")


def test_what_is_not_run_again_keeps_its_values():
    def program(x):
        first, second = torch.cond(x.sum() > 0, lambda x: (x + 1, x.t() * 2), lambda x: (x * 3, x.t() + 1), [x])
        return convert(first, BFLOAT16), convert(convert(second, BFLOAT16), FLOAT32), x.nonzero()

    graph = graph_of(program, (3, 4)).graph
    outline = outline_of(graph)
    assert outline.sharing == (0, 1, 2, 3)
    assert not outline.untrue
    optimise(JOINT, graph)
