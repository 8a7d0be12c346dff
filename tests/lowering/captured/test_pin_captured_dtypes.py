"""Memory that more than one cast could see keeps the dtype that it was captured with."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.support.captured_graphs import assert_lowers_to
from tests.support.comparison import compile_program
from tests.support.tensors import assert_near, matrices

X, W = torch.ones(2, 4), torch.ones(4, 4)


@torch.library.custom_op("xpu_amp_goldens::increment", mutates_args=("into",))
def increment(into: torch.Tensor) -> None:
    """Stand for a kernel that writes to float32."""
    into.add_(1)


def test_a_write_of_a_custom_op_reaches_the_views_of_what_it_writes_to():
    def program(x, w):
        y = F.linear(x, w)
        row = y[0]
        increment(y)
        return row, y

    assert_lowers_to(
        """\
to_1: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_2: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
y: "bf16[2, 4]" = torch._C._nn.linear(to_1, to_2)
to: "f32[2, 4]" = y.to(torch.float32)
row: "f32[4]" = to[0]
increment_default = torch.ops.xpu_amp_goldens.increment.default(to)
return (row, to)
""",
        program,
        X,
        W,
    )


def test_nothing_is_pinned_where_no_dtype_changes():
    def program(x, w):
        y = x + 1
        increment(y)
        return y

    assert_lowers_to(
        """\
y: "f32[2, 4]" = l_x_ + 1
increment_default = torch.ops.xpu_amp_goldens.increment.default(y)
return (y,)
""",
        program,
        X,
        W,
    )


def test_write_into_a_lowered_value_runs():
    def program(x, w, index):
        y = x @ w
        y.index_copy_(0, index, x)
        y += x
        y[0] = 1
        return y.addmm_(x, w)

    x, w = torch.randn(4, 4), torch.randn(4, 4)
    compiled = torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})
    out = compiled(x, w, torch.arange(4))
    torch.testing.assert_close(out, program(x, w, torch.arange(4)), rtol=0.05, atol=0.1)


OUTPUTS = {
    "row and whole": lambda h: (h[0], h),
    "flat and whole": lambda h: (h, h.view(-1)),
    "overlapping rows": lambda h: (h[:3], h[1:]),
    "float is the tensor itself": lambda h: (h, h.float()),
    "transposed": lambda h: (h.t(), h.unbind()[1]),
    "detached": lambda h: (h.detach(), h),
}


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_outputs_share_memory_as_captured(kind, inner_backend):
    def program(x, w):
        return OUTPUTS[kind](x @ w)

    results = []
    for call in (program, compile_program(program, inner_backend)):
        first, second = call(*[m.clone() for m in matrices((4, 8), (8, 8))])
        before = second.clone()
        first.add_(100.0)
        results.append((second - before, first.stride(), second.stride()))
    expected, actual = results
    assert torch.equal(actual[0].round(), expected[0].round())
    assert actual[0].abs().sum() > 0
    assert actual[1:] == expected[1:]


@pytest.mark.parametrize(
    "view", [lambda h: h[:, ::2], lambda h: h[:, :1].expand(4, 3), lambda h: h.diagonal(), lambda h: h.unfold(1, 3, 1)]
)
def test_outputs_keep_strides(view):
    def program(x, w):
        return view(x @ w)

    args = matrices((4, 8), (8, 8))
    assert compile_program(program)(*args).stride() == program(*args).stride()


def test_a_view_follows_its_base_across_a_graph_break():
    def program(x, w):
        h = x @ w
        row = h[0]
        torch._dynamo.graph_break()
        h.add_(100.0)
        return row

    args = matrices((4, 8), (8, 8))
    assert_near(compile_program(program, fullgraph=False)(*args), program(*args))


@pytest.mark.parametrize("form", ["add_", "copy_", "index_put_", "out", "as_strided"])
def test_mutations_read_and_write_captured_dtypes(form):
    def program(x, w):
        h, kept = x @ w, torch.zeros(4, 8)
        if form == "add_":
            kept.add_(h)
        elif form == "copy_":
            kept[:, ::2].copy_(h[:, ::2])
        elif form == "index_put_":
            kept[torch.tensor([2, 0])] = h[:2]
        elif form == "out":
            torch.add(h, 1.0, out=kept)
        else:
            kept = h[:, :3].as_strided((4, 8), (8, 1)) * 1
        return kept

    args = matrices((4, 8), (8, 8))
    assert_near(compile_program(program)(*args), program(*args))
