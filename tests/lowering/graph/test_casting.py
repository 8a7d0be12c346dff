"""Casts are shared where eager code shares them, and carry what they were made for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import fx

from tests.support.captured_graphs import assert_lowers_to, casts_in, lowered_graphs
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.casting import Caster
from xpu_amp_dynamo.lowering.graph.values import set_value

X, W = torch.ones(2, 4), torch.ones(4, 4)
LOW = AutocastState(True, torch.bfloat16)


def test_caster_returns_the_source_of_its_own_widening():
    graph = fx.Graph()
    x, user = graph.placeholder("x"), None
    set_value(x, torch.zeros(2, dtype=torch.bfloat16))
    user = graph.output(x)
    caster = Caster()
    wide = caster.cast(x, torch.float32, user, LOW)
    assert caster.cast(wide, torch.bfloat16, user, LOW) is x
    assert caster.cast(wide, torch.float16, user, LOW) is not x
    caster.forget([x])
    assert caster.cast(wide, torch.bfloat16, user, LOW) is not x


def test_one_cast_for_every_use():
    assert_lowers_to(
        """\
to: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
linear: "bf16[2, 4]" = torch._C._nn.linear(to, to_1)
linear_1: "bf16[2, 4]" = torch._C._nn.linear(linear, to_1)
linear_2: "bf16[2, 4]" = torch._C._nn.linear(to, to_1)
add: "bf16[2, 4]" = linear_1 + linear_2
to_2: "f32[2, 4]" = add.to(torch.float32)
return (to_2,)
""",
        lambda x, w: F.linear(F.linear(x, w), w) + F.linear(x, w),
        X,
        W,
    )


def test_a_written_value_is_cast_again():
    def program(x, w):
        a = x @ w
        x.add_(1)
        return a, x @ w

    assert_lowers_to(
        """\
to: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
a: "bf16[2, 4]" = to @ to_1
add_: "f32[2, 4]" = l_x_.add_(1)
to_2: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
matmul_1: "bf16[2, 4]" = to_2 @ to_1
to_3: "f32[2, 4]" = a.to(torch.float32)
to_4: "f32[2, 4]" = matmul_1.to(torch.float32)
return (to_3, to_4)
""",
        program,
        X.clone(),
        W,
    )


def test_views_of_a_written_value_are_cast_again():
    def program(x, w):
        view = x.view(4, 4)
        a = view @ w
        x.zero_()
        return a, view @ w

    x, w = torch.randn(16), torch.randn(4, 4)
    first, second = torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})(x, w)
    assert first.abs().max() > 0
    assert second.abs().max() == 0


def test_grad_modes_do_not_share_casts_of_what_requires_grad():
    w = W.clone().requires_grad_()

    def program(x, w):
        with torch.no_grad():
            a = F.linear(x, w)
        return a, F.linear(x, w)

    assert_lowers_to(
        """\
_set_grad_enabled = torch._C._set_grad_enabled(False)
to: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
a: "bf16[2, 4]" = torch._C._nn.linear(to, to_1)
_set_grad_enabled_1 = torch._C._set_grad_enabled(True)
to_2: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
linear_1: "bf16[2, 4]" = torch._C._nn.linear(to, to_2)
to_3: "f32[2, 4]" = a.to(torch.float32)
to_4: "f32[2, 4]" = linear_1.to(torch.float32)
return (to_3, to_4)
""",
        program,
        X,
        w,
    )


def test_activations_on_the_tape_are_cast_for_each_use_and_weights_once():
    w = torch.randn(4, 4, requires_grad=True)

    def program(x, w):
        hidden = (x + w).exp()
        return F.linear(hidden, w) + F.linear(hidden, w)

    (gm,) = lowered_graphs(program, torch.randn(4, 4), w, preserve_output_dtype=False)
    assert len(casts_in(gm)) == 3
    with torch.no_grad():
        (gm,) = lowered_graphs(program, torch.randn(4, 4), w, preserve_output_dtype=False)
    assert len(casts_in(gm)) == 2


def test_an_activation_used_twice_by_one_op_is_cast_twice():
    """Eager autocast does, and so adds up its gradient in float32."""

    def program(x, w):
        y = x * w
        return y @ y

    (gm,) = lowered_graphs(program, torch.ones(2, 2), torch.ones(2, 2, requires_grad=True))
    assert casts_in(gm).count(torch.bfloat16) == 2
    (gm,) = lowered_graphs(program, torch.ones(2, 2), torch.ones(2, 2))
    assert casts_in(gm).count(torch.bfloat16) == 1


def test_a_cast_is_shared_with_a_conversion_that_does_nothing():
    def program(x, w):
        return x @ w.float(), x @ w

    (gm,) = lowered_graphs(program, torch.ones(2, 2), torch.ones(2, 2, requires_grad=True))
    assert casts_in(gm).count(torch.bfloat16) == 2


def test_casts_carry_the_trace_and_module_of_the_op_they_serve():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.projection = torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.projection(x)

    (gm,) = lowered_graphs(Model(), torch.randn(2, 4))
    cast = next(node for node in gm.graph.nodes if "xpu_amp_dynamo.cast_for" in node.meta)
    assert "return self.projection(x)" in cast.meta["stack_trace"]
    assert any("projection" in str(entry) for entry in cast.meta["nn_module_stack"].values())
