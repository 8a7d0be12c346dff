"""Weights that become inputs of the graph packed, and those that do not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import xpu_amp_dynamo
from tests.support.captured_graphs import body_of, run_changed
from xpu_amp_dynamo.lowering.pipeline import keep_weights
from xpu_amp_dynamo.lowering.weights import pack_linear as module
from xpu_amp_dynamo.ops.packed_linear import PACKED, PACKED_LINEAR, can_pack

pytestmark = pytest.mark.skipif(not can_pack(torch.bfloat16), reason="oneDNN does not multiply in bfloat16 here")
_generator = torch.Generator().manual_seed(0)
X = torch.randn(2, 256, generator=_generator)
W, BIAS = (torch.nn.Parameter(torch.randn(*size, generator=_generator)) for size in ((256, 256), (256,)))


def packed(program, *inputs, dtype=torch.bfloat16):
    """Return a program's graph after the pass, and the layouts of the weights that it wants."""

    def pack(gm, example_inputs):
        xpu_amp_dynamo.lower(gm, example_inputs, dtype=dtype)
        return keep_weights(gm, example_inputs, skip=["cast_before_views"])

    with torch.no_grad():
        _, [(own, plan)] = run_changed(pack, program, *inputs, fullgraph=True)
    return own, [cast.layout for cast in plan.kept]


def test_golden():
    gm, layouts = packed(lambda x, w, b: F.linear(x, w, b).relu(), X, W, BIAS)
    assert layouts == [PACKED, torch.preserve_format]
    expected = """\
to: "bf16[2, 256]" = l_x_.to(torch.bfloat16)
linear: "bf16[2, 256]" = torch.ops.xpu_amp_dynamo.packed_linear.default(to, l_w__bfloat16, l_b__bfloat16)
relu: "bf16[2, 256]" = linear.relu()
to_3: "f32[2, 256]" = relu.to(torch.float32)
return (to_3,)
"""
    assert body_of(gm) == expected


@pytest.mark.parametrize(
    "program",
    [
        lambda x, w: F.linear(x, w),
        lambda x, w: F.linear(bias=None, weight=w, input=x),
        lambda x, w: F.linear(x, w) + F.linear(x[:1], w),
        lambda x, w: F.linear(x.sum(0), w),
        lambda x, w: F.linear(x, w) + w.sum(),
    ],
)
def test_packed(program):
    gm, layouts = packed(program, X, W)
    assert layouts == [PACKED]
    products = [node for node in gm.graph.nodes if node.target is PACKED_LINEAR]
    (weight,) = {node.args[1] for node in products}
    assert len(products) == len(weight.users)
    assert weight.meta["example_value"].shape == (256, 256, 0)


@pytest.mark.parametrize(
    ("program", "cached"),
    [
        (lambda x, w: x @ w, 1),
        (lambda x, w: F.linear(w, w), 1),
        (lambda x, w: F.linear(w, x), 1),
        (lambda x, w: F.linear(x, w.t()), 0),
        (lambda x, w: F.linear(x, w) + x @ w, 1),
        (lambda x, w: F.linear(x, w[:128]), 0),
        (lambda x, w: torch.vmap(F.linear, (0, None))(x, w), 0),
    ],
)
def test_left_alone(program, cached):
    gm, layouts = packed(program, X, W)
    assert layouts == [torch.preserve_format] * cached
    assert PACKED_LINEAR not in {node.target for node in gm.graph.nodes}


def test_tensor_subclasses_are_left_alone():
    """They know what ``linear`` does, but not what an op of ours does."""
    nested = torch.nested.nested_tensor([torch.randn(2, 256), torch.randn(3, 256)], layout=torch.jagged)
    assert packed(F.linear, nested, W)[1] == [torch.preserve_format]


def test_small_weights_are_left_alone():
    small = torch.nn.Parameter(torch.randn(63, 256))
    assert packed(F.linear, X, small)[1] == [torch.preserve_format]


def test_processors_without_the_dtype_are_left_alone(monkeypatch):
    monkeypatch.setattr(module, "can_pack", lambda dtype: dtype is torch.float16)
    assert packed(F.linear, X, W)[1] == [torch.preserve_format]
