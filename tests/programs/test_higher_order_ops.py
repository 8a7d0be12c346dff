"""Ops that call graphs, and ops that PyTorch does not own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import xpu_amp_dynamo
from tests.support.comparison import assert_compiled_equals_eager, compile_program, outcome_of, relative_error
from tests.support.versions import only_since

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32

# The eager side of the comparison; compiled code does not warn.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def region():
    return torch.autocast("cpu", BFLOAT16)


def causal(batch, head, query, key):
    return query >= key


class FlexAttention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.projections, self.out = torch.nn.Linear(16, 48), torch.nn.Linear(16, 16)
        self.slope = torch.nn.Parameter(torch.tensor(0.1))
        self.mask = create_block_mask(causal, None, None, 128, 128, device="cpu")

    def forward(self, x):
        q, k, v = (t.view(2, 128, 1, 16).transpose(1, 2) for t in self.projections(x).chunk(3, -1))
        slope = self.slope
        y = flex_attention(q, k, v, lambda s, b, h, i, j: s - slope.detach() * (i - j), block_mask=self.mask)
        return self.out(y.transpose(1, 2).reshape(2, 128, 16))


@pytest.mark.parametrize("around", [region, None], ids=["region", "none"])
@pytest.mark.parametrize(
    "inner_backend",
    ["eager", pytest.param("inductor", marks=only_since("2.13", "one buffer cannot hold query and key"))],
)
def test_flex_attention(inner_backend, around):
    model, x = FlexAttention(), torch.randn(2, 128, 16)
    with torch.no_grad():
        reference = model(x)
        if around is None:
            y = compile_program(model, inner_backend)(x)
            assert y.dtype is FLOAT32
        else:
            y, *_ = assert_compiled_equals_eager(model, [x], region=around, inner_backends=[inner_backend])
            assert y.dtype is BFLOAT16
    assert relative_error(y, reference) < 0.01


@only_since("2.13", "it is refused for another reason")
def test_inductor_refuses_ops_after_flex_attention_on_the_cpu():
    """Fails when PyTorch mends it: then ``inductor_workarounds`` can go."""
    torch._dynamo.reset()
    with torch.no_grad(), pytest.raises(torch._inductor.exc.InductorError, match="epilogue_nodes"):
        torch.compile(lambda q: flex_attention(q, q, q).relu())(torch.randn(1, 1, 128, 16))


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
def test_cond(inner_backend):
    def program(x, w):
        y = torch.cond(x.sum() > 0, lambda x, w: F.linear(x, w), lambda x, w: F.linear(x, w) - 1, (x, w))
        return torch.log_softmax(y, -1), y

    w = torch.randn(8, 8)
    for x in (torch.ones(4, 8), -torch.ones(4, 8)):
        outcome = assert_compiled_equals_eager(program, (x, w), region=region, inner_backends=[inner_backend])
        assert [t.dtype for t in outcome[:2]] == [FLOAT32, BFLOAT16]


@pytest.mark.parametrize("inner_backend", ["eager", "inductor"])
def test_region_inside_a_branch_of_cond(inner_backend):
    def low(x, w):
        with torch.autocast("cpu", torch.float16):
            return (x @ w).float()

    def program(x, w):
        return torch.cond(x.sum() > 0, low, lambda x, w: x @ w, (x, w))

    for x in (torch.ones(4, 8), -torch.ones(4, 8)):
        assert_compiled_equals_eager(program, (x, torch.randn(8, 8)), inner_backends=[inner_backend], enabled=False)


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_while_loop_and_map(inner_backend):
    def program(x, w):
        _, y = torch._higher_order_ops.while_loop(
            lambda i, x: i < 3, lambda i, x: (i + 1, torch.tanh(F.linear(x, w)).to(x.dtype)), (torch.tensor(0), x)
        )
        return y

    inputs = torch.randn(4, 8), torch.randn(8, 8)
    assert_compiled_equals_eager(program, inputs, region=region, inner_backends=[inner_backend])


@torch.library.custom_op("xpu_amp_programs::attention", mutates_args=())
def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of the user's own, which notes the dtypes it is run with."""
    SEEN.append((q.dtype, k.dtype, v.dtype))
    return torch.softmax(q.float() @ k.float().mT, -1).to(q.dtype) @ v


SEEN: list[tuple[torch.dtype, ...]] = []


@attention.register_fake
def _(q, k, v):
    if not q.dtype is k.dtype is v.dtype:
        raise RuntimeError(f"expected one dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    return torch.empty_like(q)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, gradient):
    with torch.enable_grad():
        inputs = [t.detach().requires_grad_() for t in ctx.saved_tensors]
        q, k, v = inputs
        y = torch.softmax(q.float() @ k.float().mT, -1).to(q.dtype) @ v
    return torch.autograd.grad(y, inputs, gradient)


attention.register_autograd(_backward, setup_context=_save)


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
def test_custom_op_that_a_policy_lists(inner_backend):
    policy = xpu_amp_dynamo.Policy.named("xpu").with_ops(lower_precision=["xpu_amp_programs::attention"])
    inputs = torch.randn(4, 8), torch.randn(8, 8, requires_grad=True)

    def program(x, w):
        return attention(x @ w, x, x)

    xpu_amp_dynamo.install(policy, "cpu")

    def run(call):
        SEEN.clear()
        with region():
            return outcome_of(call, inputs)

    expected = run(program)
    seen = list(SEEN)
    actual = run(compile_program(program, inner_backend, policy=policy))
    assert seen == SEEN == [(BFLOAT16, BFLOAT16, BFLOAT16)]
    assert actual[0].dtype is expected[0].dtype is BFLOAT16
    assert relative_error(actual[0], expected[0]) < 0.01
    assert relative_error(actual[-1], expected[-1]) < 0.02


def test_custom_op_that_no_list_names_gets_what_it_was_captured_with():
    """Its kernel refuses mixed dtypes; in a float32 program it gets float32, behind a product in bfloat16 too."""
    SEEN.clear()
    x, w = torch.randn(4, 8), torch.randn(8, 8)
    y = compile_program(lambda x, w: attention(x @ w, x, x))(x, w)
    assert y.dtype is FLOAT32
    assert SEEN == [(FLOAT32, FLOAT32, FLOAT32)]


@torch.library.custom_op("xpu_amp_programs::accumulate", mutates_args=("into",))
def accumulate(into: torch.Tensor, x: torch.Tensor) -> None:
    """Add to a tensor of the caller's."""
    into.add_(x)


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
def test_custom_op_that_writes_to_its_input(inner_backend):
    def program(into, x, w):
        accumulate(into, x @ w)
        return into @ w

    inputs = torch.zeros(4, 8), torch.randn(4, 8), torch.randn(8, 8)
    assert_compiled_equals_eager(program, inputs, region=region, inner_backends=[inner_backend])
    into, *_ = copies = [t.clone() for t in inputs]
    y = compile_program(program, inner_backend)(*copies)
    assert y.dtype is into.dtype is FLOAT32
    assert relative_error(into, inputs[1] @ inputs[2]) < 0.01


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
def test_custom_op_that_writes_to_a_product(inner_backend):
    """It gets the float32 that it was captured with, and its write shows in all views."""

    def program(x, w):
        y = x @ w
        row = y[1]
        accumulate(y, x)
        return y, row, y @ w

    x, w = torch.randn(4, 8), torch.randn(8, 8)
    y, row, product = compile_program(program, inner_backend)(x, w)
    expected = (x.bfloat16() @ w.bfloat16()).float() + x
    assert torch.equal(y, expected)
    assert torch.equal(row, expected[1])
    assert relative_error(product, expected @ w) < 0.01


@only_since("2.12", "branches may not write to their inputs")
@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_branches_that_write_to_a_product(inner_backend):
    def program(x, w):
        y = x @ w
        z = torch.cond(x.sum() > 0, lambda y: y.add_(1).sum(), lambda y: y.mul_(2).sum(), (y,))
        return y, z

    with torch.no_grad():
        for x in (torch.ones(4, 8), -torch.ones(4, 8)):
            w = torch.randn(8, 8)
            assert_compiled_equals_eager(program, (x, w), region=region, inner_backends=[inner_backend])
            y, z = compile_program(program, inner_backend)(x, w)
            assert y.dtype is z.dtype is FLOAT32
            assert relative_error(y, program(x, w)[0]) < 0.01


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_a_compiled_region_is_lowered_for_each_state_that_it_is_called_under(inner_backend):
    @torch.compiler.nested_compile_region
    def inner(x, w):
        return (x @ w).sin()

    def program(x, w):
        plain = inner(x, w)
        with torch.autocast("cpu", torch.bfloat16):
            bfloat16 = inner(x, w)
        with torch.autocast("cpu", torch.float16):
            return plain, bfloat16, inner(x, w)

    x, w = torch.randn(4, 4), torch.randn(4, 4)
    xpu_amp_dynamo.install("xpu", "cpu")
    options = {"inner_backend": inner_backend, "enabled": False}
    outputs = torch.compile(program, backend="xpu_amp", fullgraph=True, options=options)(x, w)
    for output, expected in zip(outputs, program(x, w), strict=True):
        assert torch.equal(output, expected.float())
