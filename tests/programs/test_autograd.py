"""Activation checkpointing, custom autograd functions, ``torch.func`` and forward mode."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import xpu_amp_dynamo
from tests.support.comparison import (
    INDUCTOR_BOUND,
    assert_compiled_equals_eager,
    assert_same,
    compile_program,
    outcome_of,
    relative_error,
)

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32

pytestmark = [
    # Dynamo makes one when it captures a custom function, torch 2.13.0.
    pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated:DeprecationWarning"),
]


def region(*args, **kwargs):
    return torch.autocast("cpu", *(args or (BFLOAT16,)), **kwargs)


def mlp():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16), torch.nn.Linear(16, 8))


X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
def test_checkpointing_inside_compiled_code(inner_backend):
    """Each block casts for itself. Of what two share, eager code shares the cast, and adds up bfloat16 gradients."""
    first, second = mlp(), mlp()

    def program(x):
        return checkpoint(first, x.sin(), use_reentrant=False) + checkpoint(second, x.cos(), use_reentrant=False)

    weights = [*first.parameters(), *second.parameters()]
    assert_compiled_equals_eager(program, [X], region=region, weights=weights, inner_backends=[inner_backend])


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
def test_checkpointing_around_compiled_code(inner_backend, use_reentrant):
    """Recomputation runs outside the region around the first run: checkpointing must bring the state back."""
    model = mlp()
    xpu_amp_dynamo.install(device_type="cpu")

    def program(call):
        def run(x):
            with region():
                return checkpoint(call, x, use_reentrant=use_reentrant)

        return run

    expected = outcome_of(program(model), [X], model.parameters())
    compiled = compile_program(model, inner_backend)
    actual = outcome_of(program(compiled), [X], model.parameters())
    # Inductor's layer norm keeps its statistics in the lower precision on the CPU, which PyTorch's kernel does not.
    assert_same(actual, expected, exact=inner_backend != "inductor", bound=2 * INDUCTOR_BOUND)
    assert actual[0].dtype is BFLOAT16


def test_reentrant_checkpointing_inside_compiled_code_breaks_the_graph_and_stays_right():
    model = mlp()

    def program(x):
        return checkpoint(model, x * 2, use_reentrant=True) * 2

    assert_compiled_equals_eager(
        program, [X], region=region, weights=model.parameters(), fullgraph=False, inner_backends=["eager", "aot_eager"]
    )


class Projection(torch.autograd.Function):
    """A product in the dtype that ``custom_fwd`` hands it, with a backward of its own."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=FLOAT32)
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, gradient):
        x, w = ctx.saved_tensors
        return gradient @ w.mT, x.mT @ gradient


class RegionProjection(Projection):
    """The same without ``cast_inputs``: forward and backward run in the state around the forward."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize(("function", "dtype"), [(Projection, FLOAT32), (RegionProjection, BFLOAT16)])
def test_custom_functions(function, dtype, inner_backend):
    inputs = torch.randn(4, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)

    def program(x, w):
        return function.apply(x @ w, w)

    outcome = assert_compiled_equals_eager(program, inputs, region=region, inner_backends=[inner_backend])
    assert outcome[0].dtype is dtype


@pytest.mark.parametrize("function", [Projection, RegionProjection])
def test_custom_function_without_a_region(function):
    """A float32 program stays one: what ``custom_fwd`` turns off is off, and the rest runs in the lower precision."""
    inputs = torch.randn(4, 8, requires_grad=True), torch.randn(8, 8, requires_grad=True)

    def program(x, w):
        return function.apply(x, w)

    y, *_, x_gradient, w_gradient = outcome_of(compile_program(program), inputs)
    reference = outcome_of(program, inputs)
    assert y.dtype is x_gradient.dtype is w_gradient.dtype is FLOAT32
    for one, other in zip((y, x_gradient, w_gradient), (reference[0], *reference[-2:]), strict=True):
        assert relative_error(one, other) < 0.01


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
def test_grad_and_vmap(inner_backend):
    def loss(w, x):
        return F.linear(x, w).float().square().mean()

    def program(w, x):
        per_example = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(w, x)
        gradient, value = torch.func.grad_and_value(loss)(w, x)
        rows = torch.func.vmap(lambda row: F.gelu(row @ w))(x)
        return per_example, gradient, value, rows

    inputs = torch.randn(8, 8), torch.randn(4, 8)
    outcome = assert_compiled_equals_eager(program, inputs, region=region, inner_backends=[inner_backend])
    assert [t.dtype for t in outcome[:4]] == [FLOAT32, FLOAT32, FLOAT32, BFLOAT16]


def test_composite_inside_a_level():
    """Captured without a region, a row's product runs in bfloat16 and its log_softmax in float32."""

    def program(w, x):
        return torch.func.vmap(lambda row: torch.log_softmax(torch.einsum("i,ij->j", row, w), -1))(x)

    w, x = torch.randn(8, 8), torch.randn(4, 8)
    with xpu_amp_dynamo.record_lowerings() as reports:
        y = compile_program(program)(w, x)
    assert {name: reports[0].ops[name] for name in ("composite", "lower_precision", "float32")} == {
        "composite": 1,
        "lower_precision": 1,
        "float32": 1,
    }
    assert y.dtype is FLOAT32
    assert torch.equal(y, torch.log_softmax((x.bfloat16() @ w.bfloat16()).float(), -1))


def test_levels_are_left_when_lowering_fails():
    def program(x):
        return torch.func.vmap(lambda row: F.binary_cross_entropy(row, row))(x)

    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="binary_cross_entropy"):
        compile_program(program, policy="torch")(torch.rand(4, 8))
    assert torch._C._functorch.peek_interpreter_stack() is None


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_jvp_inside_compiled_code(inner_backend):
    def program(w, x, t):
        return torch.func.jvp(lambda v: F.gelu(x @ v), (w,), (t,))

    inputs = torch.randn(8, 8), torch.randn(4, 8), torch.randn(8, 8)
    outcome = assert_compiled_equals_eager(program, inputs, region=region, inner_backends=[inner_backend])
    assert [t.dtype for t in outcome[:2]] == [BFLOAT16, BFLOAT16]


def test_forward_mode_through_eager_autocast():
    w, x, tangent = torch.randn(8, 8), torch.randn(4, 8), torch.randn(8, 8)
    with forward_ad.dual_level(), xpu_amp_dynamo.autocast("cpu"):
        dual = x @ forward_ad.make_dual(w, tangent)
        value, derivative = forward_ad.unpack_dual(dual)
    assert value.dtype is derivative.dtype is BFLOAT16
    torch.testing.assert_close(derivative.float(), x @ tangent, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_second_derivatives(inner_backend):
    if inner_backend == "aot_eager":
        pytest.skip("AOTAutograd refuses double backward (torch 2.13.0)")
    w = torch.randn(8, 8, requires_grad=True)
    x = torch.randn(4, 8)

    def penalty(call):
        with region():
            y = call(x, w).float().square().sum()
        (gradient,) = torch.autograd.grad(y, w, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), w)
        return second

    xpu_amp_dynamo.install(device_type="cpu")

    def program(x, w):
        return F.linear(x, w)

    assert torch.equal(penalty(compile_program(program, inner_backend)), penalty(program))


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_what_a_write_puts_on_the_tape_is_cast_for_each_use(inner_backend):
    """Eager autocast casts ``v`` twice and adds up its gradients in float32; it is known to need none only before."""

    def program(x, w):
        v = torch.log_softmax(x, -1)
        written = v.add_(w)
        return v @ v, written @ written

    inputs = [torch.randn(4, 4), torch.randn(4, 4, requires_grad=True)]
    assert_compiled_equals_eager(program, inputs, region=region, weights=[inputs[1]], inner_backends=[inner_backend])
