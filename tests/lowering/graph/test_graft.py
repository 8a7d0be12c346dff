"""Composites that return several tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import xpu_amp_dynamo
from tests.support.comparison import compile_program
from tests.support.tensors import assert_near

MODULES = {
    "attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), lambda m, x: m(x, x, x)),
    "attention without weights": (
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        lambda m, x: m(x, x, x, need_weights=False)[0],
    ),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), lambda m, x: m(x)),
    "transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16, 0.0, batch_first=True), lambda m, x: m(x, x)),
    "LSTM cell": (lambda: nn.LSTMCell(8, 8), lambda m, x: m(x[0], m(x[0]))),
    "GRU cell": (lambda: nn.GRUCell(8, 8), lambda m, x: m(x[0], m(x[0]))),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_modules_whose_composites_return_several_tensors(name, training):
    make, call = MODULES[name]
    module, x = make().train(training), torch.randn(2, 3, 8)
    with xpu_amp_dynamo.record_lowerings() as reports:
        actual = torch.compile(lambda x: call(module, x), backend="xpu_amp", options={"inner_backend": "eager"})(x)
    expected = call(module, x)
    for got, want in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        assert_near(got, want)
    assert sum(report.casts for report in reports) > 0


def test_cells_in_a_region_equal_eager_ones_with_gradients():
    """A cell's result that is read twice gets its gradient added up in float32, as in eager code."""
    gru, rnn, x = nn.GRUCell(8, 8), nn.RNNCell(8, 8), torch.randn(4, 3, 8)

    def program(x):
        state = other = x.new_zeros(4, 8)
        for step in range(3):
            state = gru(x[:, step], state)
            other = rnn(state, other)
        return other

    gradients = []
    xpu_amp_dynamo.install(device_type="cpu")
    for call in (program, compile_program(program)):
        with torch.autocast("cpu", torch.bfloat16):
            y = call(x)
        (y.float() * torch.linspace(0.5, 1.5, 8)).sum().backward()
        parameters = [*gru.parameters(), *rnn.parameters()]
        gradients.append([p.grad.clone() for p in parameters if p.grad is not None])
        gru.zero_grad()
        rnn.zero_grad()
    assert len(gradients[0]) == 8
    assert all(map(torch.equal, *gradients))
