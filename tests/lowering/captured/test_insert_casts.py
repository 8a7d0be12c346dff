"""The dtypes in which ops run: of every list, beside writes, and where the policy or PyTorch refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx

import xpu_amp_dynamo
from tests.support.captured_graphs import assert_lowers_to, calls_in, casts_in, lowered_graphs, run_lowered
from tests.support.comparison import assert_same
from tests.support.policies import policy_of
from tests.support.tensors import matrices
from xpu_amp_dynamo.errors import BannedOpError, LoweringError

X, W = torch.ones(2, 4), torch.ones(4, 4)
BFLOAT16, FLOAT16, FLOAT32, FLOAT64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
INT64, COMPLEX64 = torch.int64, torch.complex64

# A program of one listed op, the shapes of its inputs, and how many of these the op reads.
LOWER_PRECISION_CALLS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], int]] = {
    "conv1d": (lambda x, w: F.conv1d(x, w), [(1, 2, 4), (3, 2, 1)], 2),
    "conv2d": (lambda x, w: F.conv2d(x, w), [(1, 2, 4, 4), (3, 2, 1, 1)], 2),
    "conv3d": (lambda x, w: F.conv3d(x, w), [(1, 2, 4, 4, 4), (3, 2, 1, 1, 1)], 2),
    "bmm": (torch.bmm, [(2, 4, 4), (2, 4, 4)], 2),
    "baddbmm": (lambda x, w: torch.baddbmm(x, x, w), [(2, 4, 4), (2, 4, 4)], 2),
    "addmm": (lambda x, w: w.addmm(w, w), [(2, 4), (4, 4)], 1),
    "linear": (F.linear, [(2, 4), (4, 4)], 2),
    "matmul": (torch.matmul, [(2, 4), (4, 4)], 2),
    "_convolution": (
        lambda x, w: torch._convolution(x, w, None, (1,), (0,), (1,), False, (0,), 1, False, False, True, True),
        [(1, 2, 4), (3, 2, 1)],
        2,
    ),
    "convolution": (
        lambda x, w: torch.convolution(x, w, None, (1,), (0,), (1,), False, (0,), 1),
        [(1, 2, 4), (3, 2, 1)],
        2,
    ),
}


@pytest.mark.parametrize("op", LOWER_PRECISION_CALLS)
def test_every_documented_lower_precision_op(op):
    program, shapes, reads = LOWER_PRECISION_CALLS[op]
    inputs = matrices(*shapes)
    result, (gm,) = run_lowered(program, *inputs, preserve_output_dtype=False)
    casts = [("to", [FLOAT32], BFLOAT16)] * reads
    assert calls_in(gm) == [*casts, (op, [BFLOAT16] * reads, BFLOAT16)]
    assert_same([result], [program(*(x.bfloat16() for x in inputs))])


def fft(name: str) -> Callable[..., Any]:
    """Return the program of a Fourier transform."""
    return lambda x, t: getattr(torch.fft, name)(x)


# A program of one listed op, the name it is captured under, the dtypes of what it reads, and that of its result.
FLOAT32_CALLS = {
    "log_softmax": (lambda x, t: F.log_softmax(x, -1), "log_softmax", [FLOAT32], FLOAT32),
    "nll_loss": (lambda x, t: torch.ops.aten.nll_loss(x, t), "nll_loss", [FLOAT32, INT64], FLOAT32),
    "nll_loss_nd": (lambda x, t: F.nll_loss(x, t), "nll_loss", [FLOAT32, INT64], FLOAT32),
    "cross_entropy_loss": (lambda x, t: F.cross_entropy(x, t), "cross_entropy", [FLOAT32, INT64], FLOAT32),
    **{
        f"fft_{name}": (fft(name), f"fft_{name}", [FLOAT32], COMPLEX64)
        for name in ("fft", "ifft", "fft2", "ifft2", "fftn", "ifftn", "rfft", "rfft2", "rfftn", "ihfft")
    },
    **{f"fft_{name}": (fft(name), f"fft_{name}", [FLOAT32], FLOAT32) for name in ("irfft", "irfft2", "irfftn", "hfft")},
}


@pytest.mark.parametrize("op", FLOAT32_CALLS)
def test_every_documented_float32_op(op):
    program, name, reads, dtype = FLOAT32_CALLS[op]
    x, target = torch.randn(4, 4), torch.zeros(4, dtype=torch.int64)
    result, (gm,) = run_lowered(lambda x, t: program(x @ x, t), x, target)
    product = [("to", [FLOAT32], BFLOAT16), ("matmul", [BFLOAT16], BFLOAT16)]
    assert calls_in(gm) == [*product, ("to", [BFLOAT16], FLOAT32), (name, reads, dtype)]
    assert_same([result], [program((x.bfloat16() @ x.bfloat16()).float(), target)])


@pytest.mark.parametrize(
    ("dtypes", "cast", "read", "promoted"),
    [
        ([BFLOAT16, BFLOAT16], [], [BFLOAT16, BFLOAT16], BFLOAT16),
        ([BFLOAT16, FLOAT32], [BFLOAT16], [FLOAT32, FLOAT32], FLOAT32),
        ([BFLOAT16, FLOAT16], [BFLOAT16, FLOAT16], [FLOAT32, FLOAT32], FLOAT32),
        ([FLOAT16, FLOAT16], [], [FLOAT16, FLOAT16], FLOAT16),
        ([FLOAT32, FLOAT32], [], [FLOAT32, FLOAT32], FLOAT32),
        ([BFLOAT16, FLOAT64], [], [BFLOAT16, FLOAT64], FLOAT64),
        ([BFLOAT16, INT64], [], [BFLOAT16, INT64], BFLOAT16),
    ],
    ids=str,
)
def test_promote_in_every_mixture(dtypes, cast, read, promoted):
    parts = [(10 * part).to(dtype) for part, dtype in zip(matrices((2,), (2,)), dtypes, strict=True)]
    result, (gm,) = run_lowered(lambda a, b: torch.cat([a, b]), *parts)
    assert calls_in(gm) == [*(("to", [dtype], promoted) for dtype in cast), ("cat", read, promoted)]
    assert_same([result], [torch.cat([part.to(promoted) for part in parts])])


def test_float16():
    assert_lowers_to(
        """\
to: "f16[2, 4]" = l_args_0_.to(torch.float16)
to_1: "f16[4, 4]" = l_args_1_.to(torch.float16)
linear: "f16[2, 4]" = torch._C._nn.linear(to, to_1)
to_2: "f32[2, 4]" = linear.to(torch.float32)
return (to_2,)
""",
        F.linear,
        X,
        W,
        dtype=FLOAT16,
    )


def test_float64_and_integers_are_not_eligible():
    def program(x, w, i):
        return x.double() @ w.double(), i @ i, torch.cat([x.double(), x])

    assert_lowers_to(
        """\
double: "f64[2, 4]" = l_x_.double()
double_1: "f64[4, 4]" = l_w_.double()
matmul: "f64[2, 4]" = double @ double_1
matmul_1: "i64[4, 4]" = l_i_ @ l_i_
double_2: "f64[2, 4]" = l_x_.double()
cat: "f64[4, 4]" = torch.cat([double_2, l_x_])
return (matmul, matmul_1, cat)
""",
        program,
        X,
        W,
        W.long(),
    )


def test_in_place_and_out_calls_are_not_eligible():
    def program(x, w, out):
        out.addmm_(w, w)
        torch.mm(x, w, out=x)
        return w.addmm(w, w)

    assert_lowers_to(
        """\
addmm_: "f32[4, 4]" = l_out_.addmm_(l_w_, l_w_)
mm: "f32[2, 4]" = torch.mm(l_x_, l_w_, out = l_x_)
to: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
addmm: "bf16[4, 4]" = to.addmm(to, to)
to_1: "f32[4, 4]" = addmm.to(torch.float32)
return (to_1,)
""",
        program,
        X.clone(),
        W,
        W.clone(),
    )


def test_stack_of_a_lowered_value_and_an_input():
    assert_lowers_to(
        """\
to: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
matmul: "bf16[2, 4]" = to @ to_1
to_2: "f32[2, 4]" = matmul.to(torch.float32)
stack: "f32[2, 2, 4]" = torch.stack([to_2, l_x_])
return (stack,)
""",
        lambda x, w: torch.stack([x @ w, x]),
        X,
        W,
    )


def test_cache_write_in_float32_program_runs():
    def program(cache, x, w, index):
        cache.index_copy_(0, index, x @ w)
        cache.addmm_(x @ w, x @ w)
        return cache.sum()

    cache, x, w = torch.zeros(4, 4), torch.randn(4, 4), torch.randn(4, 4)
    compiled = torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})
    assert compiled(cache, x, w, torch.arange(4)).dtype is torch.float32
    low = (x.bfloat16() @ w.bfloat16()).float()
    torch.testing.assert_close(cache, low + low @ low)


def test_disabled_region_in_a_float32_program_gets_float32():
    def program(x, w):
        y = x @ w
        with torch.autocast("cpu", enabled=False):
            return y @ w

    x, w = torch.randn(4, 4), torch.randn(4, 4)
    compiled = torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})
    assert torch.equal(compiled(x, w), (x.bfloat16() @ w.bfloat16()).float() @ w)


def test_banned_op_names_its_place():
    def program(x, t):
        return F.binary_cross_entropy(x, t)

    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed) as caught:
        lowered_graphs(program, torch.rand(2), torch.rand(2), policy="torch")
    assert isinstance(caught.value.inner_exception, BannedOpError)
    assert "return F.binary_cross_entropy(x, t)" in str(caught.value.inner_exception)


def test_the_advice_fits_the_banned_op():
    gm = fx.symbolic_trace(lambda x: torch.exp(x))
    with pytest.raises(BannedOpError, match=r"exp is unsafe.*bans it; run it on float32.*leave=\['exp'\]") as caught:
        xpu_amp_dynamo.lower(gm, [torch.ones(2)], policy=policy_of("mine", banned=["exp"]))
    assert "binary_cross_entropy" not in str(caught.value)


def test_what_backward_needs_is_kept_where_capture_cast_it():
    """Eager autocast multiplies a copy of the float32 ``v`` that stock kernels give; lowered, ``v`` is bfloat16."""

    def program(x, w):
        with torch.autocast("cpu", torch.bfloat16):
            v = torch.sin(x)
            y = w @ v
            v.mul_(0)
        return y

    x, w = torch.randn(4, 4), torch.randn(4, 4, requires_grad=True)
    policy = xpu_amp_dynamo.Policy.named("xpu").with_ops(lower_precision=["sin"])
    options: dict[str, Any] = {"inner_backend": "eager", "policy": policy}
    torch.compile(program, backend="xpu_amp", options=options)(x, w).float().sum().backward()
    expected = x.bfloat16().sin().float().sum(1).expand(4, 4)
    torch.testing.assert_close(w.grad, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_what_backward_needs_is_kept_from_later_writes(inner_backend):
    """Eager code multiplies a cast copy of ``v``; lowered, ``v`` itself has the wanted dtype already."""

    def program(x, w):
        v = x @ x
        with torch.autocast("cpu", torch.bfloat16):
            y = w @ v
        v.add_(1)
        return y, v

    x, w = torch.randn(4, 4), torch.randn(4, 4, requires_grad=True)
    y, _ = torch.compile(program, backend="xpu_amp", options={"inner_backend": inner_backend})(x, w)
    y.float().sum().backward()
    expected = (x.bfloat16() @ x.bfloat16()).sum(1).float().expand(4, 4)
    torch.testing.assert_close(w.grad, expected, rtol=0.02, atol=0.02)


def test_views_whose_base_is_written_to_later_are_lowered():
    """Autograd refuses the halves that capture has recorded, since by now it has run the write too."""

    def program(x, w):
        y = torch.sin(w)
        halves = torch.cat(y.chunk(2, -1), -1) @ x
        y.add_(1)
        return halves

    with torch.autocast("cpu", torch.bfloat16):
        (gm,) = lowered_graphs(program, torch.ones(4, 4), torch.ones(4, 4, requires_grad=True))
    assert torch.bfloat16 in casts_in(gm)


def test_graphs_that_cannot_run_at_all_are_refused():
    gm = torch.fx.symbolic_trace(lambda x, w: x @ w @ x)
    with pytest.raises(LoweringError, match="cannot lower"):
        xpu_amp_dynamo.lower(gm, [torch.randn(2, 3), torch.randn(3, 4)])
