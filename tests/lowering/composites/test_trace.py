"""Ops that no list names and that hold listed ones."""

from __future__ import annotations

import pytest
import torch

import xpu_amp_dynamo
from tests.support.captured_graphs import assert_lowers_to, casts_in, lowered_graphs
from tests.support.comparison import compile_program
from tests.support.tensors import assert_near, matrices

X, W = torch.ones(2, 4), torch.ones(4, 4)


def test_composite_is_cast_inside():
    assert_lowers_to(
        """\
to: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
matmul_1: "bf16[4, 4]" = torch.ops.aten.matmul.default(to, to)
matmul_2: "bf16[4, 4]" = torch.ops.aten.matmul.default(matmul_1, to)
matmul: "bf16[4, 4]" = to @ to
to_1: "f32[4, 4]" = matmul.to(torch.float32)
cat: "f32[4, 8]" = torch.ops.aten.cat.default([to_1, l_w_], 1)
getitem: "f32[4, 4]" = cat[(slice(None, None, None), slice(None, 4, None))]
to_2: "f32[4, 4]" = matmul_2.to(torch.float32)
add: "f32[4, 4]" = to_2 + getitem
return (add,)
""",
        lambda x, w: torch.linalg.matrix_power(w, 3) + torch.hstack([w @ w, w])[:, :4],
        X,
        W,
    )


def test_a_function_whose_contents_change_is_looked_into_again():
    multiply = False

    @torch.compiler.allow_in_graph
    def function(x, w):
        return x @ w if multiply else x + w

    args, casts = matrices((4, 4), (4, 4)), []
    for multiply in (False, True, False):  # noqa: B007, the closure reads it
        (gm,) = lowered_graphs(lambda x, w: function(x, w), *args)
        casts.append(len(casts_in(gm)))
    assert casts == [0, 3, 0]


def test_a_call_that_cannot_be_traced_runs_as_captured():
    def program(x, w):
        return torch.istft(torch.stft(x @ w, 8, return_complex=True, window=torch.ones(8)), 8, window=torch.ones(8))

    args = matrices((2, 16), (16, 16))
    assert_near(compile_program(program, fullgraph=False)(*args), program(*args), 0.03)


@pytest.fixture
def library():
    """Make a library with two ops: one has an autocast kernel of its own that wants float32, one that wants float16."""
    with torch.library._scoped_library("foreign_ops", "DEF") as made:
        for name, wanted in (("wide", torch.float32), ("half", torch.float16)):
            made.define(f"{name}(Tensor x) -> Tensor")

            def kernel(x, wanted=wanted):
                assert x.dtype is wanted
                return x + 1

            torch.library.impl(f"foreign_ops::{name}", "CPU", kernel, lib=made)
            torch.library.register_fake(f"foreign_ops::{name}", torch.empty_like, lib=made)
            torch.library.register_autocast(f"foreign_ops::{name}", "cpu", wanted, lib=made)
        yield torch.ops.foreign_ops


def test_autocast_kernels_of_other_libraries_are_honoured_in_compiled_code(library):
    def program(x, w):
        h = x @ w
        return library.wide(h) + 1, library.half(x), library.wide.default(h)

    args = matrices((4, 8), (8, 8))
    xpu_amp_dynamo.install(device_type="cpu")
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = program(*args), compile_program(program)(*args)
    assert [t.dtype for t in actual] == [torch.float32, torch.float16, torch.float32]
    assert all(map(torch.equal, actual, expected))
    assert {t.dtype for t in compile_program(program)(*args)} == {torch.float32}
