"""Outputs share memory with each other and with inputs where those of the float32 program do, and nowhere else."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import fx

import xpu_amp_dynamo
from tests.support.comparison import compile_program

X, W = torch.randn(4, 8), torch.randn(8, 8)


def shared(outputs, *inputs):
    """Return which of inputs and outputs lie in the same memory, by the position of the first."""
    pointers = [tensor.untyped_storage().data_ptr() for tensor in (*inputs, *outputs)]
    return [pointers.index(pointer) for pointer in pointers]


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
@pytest.mark.parametrize(
    "convert", [torch.Tensor.bfloat16, lambda h: h.to(torch.bfloat16), lambda h: h.type(torch.bfloat16)]
)
def test_conversions_to_the_lowered_dtype_copy(convert, inner_backend):
    def program(x, w):
        h = x @ w
        return convert(h), convert(h)

    outputs = compile_program(program, inner_backend=inner_backend)(X, W)
    assert shared(outputs) == shared(program(X, W))
    expected = (X.bfloat16() @ W.bfloat16()).float().bfloat16()
    assert all(torch.equal(output, expected) for output in outputs)
    outputs[0].zero_()
    assert torch.equal(outputs[1], expected)


def test_conversions_of_a_region_do_what_the_policy_says():
    """The stock table does not list ``addmv``, so that capture copied what is bfloat16 already under ours."""

    def program(x, w):
        with torch.autocast("cpu"):
            h = torch.addmv(x[:, 0], x, w[0])
            return h.bfloat16(), h.bfloat16()

    outputs = compile_program(program, inner_backend="eager")(X, W)
    xpu_amp_dynamo.install("xpu", "cpu")
    expected = program(X, W)
    assert all(map(torch.equal, outputs, expected))
    assert shared(outputs) == shared(expected)


@pytest.mark.parametrize("picked", [True, False])
@pytest.mark.parametrize("helper", [lambda x, w: (x @ w, x), lambda x, w: (x @ w, x.view(-1))])
def test_results_of_a_helper_without_values(helper, picked):
    def function(x, w):
        return helper(x, w)

    graph = fx.Graph()
    call = graph.call_function(function, (graph.placeholder("x"), graph.placeholder("w")))
    graph.output(tuple(graph.call_function(operator.getitem, (call, i)) for i in range(2)) if picked else call)
    gm = xpu_amp_dynamo.lower(fx.GraphModule({}, graph), [X, W])
    outputs, expected = gm(X, W), helper(X, W)
    assert shared(outputs, X, W) == shared(expected, X, W)
    assert [output.dtype for output in outputs] == [torch.float32] * 2


class Tied(torch.nn.Module):
    """Two layers of one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (torch.nn.Linear(8, 8, bias=False) for _ in range(2))
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


@pytest.mark.parametrize("strict", [True, False])
def test_tied_weights_are_stored_in_the_lower_dtype(strict):
    exported = torch.export.export(Tied(), (X,), strict=strict)
    lowered = xpu_amp_dynamo.lower_exported(exported, weights="cached")
    plain = xpu_amp_dynamo.lower_exported(exported)
    assert torch.equal(lowered.module()(X), plain.module()(X))
    assert torch.bfloat16 in {weight.dtype for weight in lowered.state_dict.values()}


def test_a_wrapped_function_can_be_lowered_and_others_traced_afterwards():
    gm = fx.symbolic_trace(lambda x, w: wrapped(x, w))
    xpu_amp_dynamo.lower(gm, [X, W])
    assert fx.symbolic_trace(lambda x: x + 1)(X).dtype is torch.float32


@fx.wrap
def wrapped(x, w):
    """Multiply matrices."""
    return torch.einsum("ij,jk->ik", x, w)
