"""Casts of views of weights, and what casts stay where they are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import xpu_amp_dynamo
from tests.support.captured_graphs import body_of, run_changed
from xpu_amp_dynamo.lowering.graph.casting import is_inserted_cast
from xpu_amp_dynamo.lowering.weights.cast_before_views import cast_before_views
from xpu_amp_dynamo.lowering.weights.plan import WeightPlan, placeholders, weights_of

_generator = torch.Generator().manual_seed(0)
X = torch.randn(4, 4, generator=_generator)
W, EXPERTS = (torch.nn.Parameter(torch.randn(*size, generator=_generator)) for size in ((4, 4), (3, 4, 4)))


def recast(program, *inputs):
    """Return a program's graph after the pass, whether that changed it, and the inputs that the graph casts."""

    def change(gm, example_inputs):
        xpu_amp_dynamo.lower(gm, example_inputs)
        changed = cast_before_views(gm, WeightPlan(weights_of(gm, example_inputs)))
        gm.recompile()
        gm.graph.lint()
        return gm, changed

    with torch.no_grad():
        expected = program(*inputs)
        lowered, [(gm, changed)] = run_changed(change, program, *inputs, fullgraph=True)
        xpu_amp_dynamo.install(device_type="cpu")
        with torch.autocast("cpu"):
            eager = program(*inputs)
    assert lowered.dtype is expected.dtype
    assert torch.equal(lowered, eager.to(expected.dtype))
    return gm, changed, [n.name for n in placeholders(gm) if any(map(is_inserted_cast, n.users))]


def test_golden():
    gm, changed, _ = recast(lambda x, w: x @ w.t() + x[:, :2] @ w.chunk(2)[1], X, W)
    assert changed
    expected = """\
to_5: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
t_1: "bf16[4, 4]" = to_5.t()
to: "bf16[4, 4]" = l_x_.to(torch.bfloat16)
matmul: "bf16[4, 4]" = to @ t_1
getitem: "f32[4, 2]" = l_x_[(slice(None, None, None), slice(None, 2, None))]
chunk_1 = to_5.chunk(2)
getitem_3: "bf16[2, 4]" = chunk_1[1]
to_2: "bf16[4, 2]" = getitem.to(torch.bfloat16)
matmul_1: "bf16[4, 4]" = to_2 @ getitem_3
add: "bf16[4, 4]" = matmul + matmul_1
to_4: "f32[4, 4]" = add.to(torch.float32)
return (to_4,)
"""
    assert body_of(gm) == expected


@pytest.mark.parametrize(
    "program",
    [
        lambda x, w: x @ w[0],
        lambda x, w: x @ w.mT[0],
        lambda x, w: torch.stack([x @ w[i] for i in range(3)]),
        lambda x, w: x @ w.chunk(3)[1].squeeze(0),
        lambda x, w: x @ w.unbind()[2],
        lambda x, w: torch.bmm(x.expand(3, 4, 4), w.transpose(1, 2)),
        lambda x, w: F.linear(x, w.view(12, 4)[:5]),
        lambda x, w: F.linear(x, w.permute(2, 0, 1).reshape(4, 12).t()) if w.is_contiguous() else x,
        lambda x, w: x @ w.detach()[1] + x @ w[1],
    ],
)
def test_views_are_taken_of_the_cast_weight(program):
    gm, changed, cast = recast(program, X, EXPERTS)
    assert changed
    assert "l_w_" in cast
    assert len([n for n in gm.graph.nodes if is_inserted_cast(n) and n.args[0].name == "l_w_"]) == 1


@pytest.mark.parametrize(
    "program",
    [
        lambda x, w: x @ w,
        lambda x, w: x @ w.float(),
        lambda x, w: x.t() @ w,
        lambda x, w: x @ (w + 1).t(),
        lambda x, w: x @ w.t().contiguous(),
        lambda x, w: x @ torch.as_strided(w, (4, 4), (1, 4)),
        lambda x, w: x @ w.t().view(torch.int32).view(torch.float32),
    ],
)
def test_left_alone(program):
    assert not recast(program, X, W)[1]


def test_weights_that_are_written_to_are_left_alone():
    def program(x, w):
        w = w.t()
        y = x @ w
        w.mul_(1)
        return y

    assert not recast(program, X, W)[1]
