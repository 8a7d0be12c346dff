"""Golden graphs: what each rule of the specification does to a small program."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from expecttest import assert_expected_inline

from tests.support.captured_graphs import lowered_text

BFLOAT16, FLOAT16, FLOAT32, FLOAT64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


def tensor(*sizes: int, dtype: torch.dtype = FLOAT32) -> torch.Tensor:
    return torch.ones(sizes, dtype=dtype)


@pytest.fixture(autouse=True)
def on_the_cpu(device):
    if device != "cpu":
        pytest.skip("goldens are of CPU graphs; other devices give the same text")


X, W = tensor(2, 4), tensor(4, 4)
IMAGE, VOLUME, SIGNAL = tensor(1, 2, 4, 4), tensor(1, 2, 4, 4, 4), tensor(1, 2, 4)
LOWER_PRECISION_CALLS = {
    "conv1d": lambda: (lambda x, w: F.conv1d(x, w), SIGNAL, tensor(3, 2, 1)),
    "conv2d": lambda: (lambda x, w: F.conv2d(x, w), IMAGE, tensor(3, 2, 1, 1)),
    "conv3d": lambda: (lambda x, w: F.conv3d(x, w), VOLUME, tensor(3, 2, 1, 1, 1)),
    "bmm": lambda: (torch.bmm, tensor(2, 4, 4), tensor(2, 4, 4)),
    "baddbmm": lambda: (lambda x, w: torch.baddbmm(x, x, w), tensor(2, 4, 4), tensor(2, 4, 4)),
    "addmm": lambda: (lambda x, w: w.addmm(w, w), X, W),
    "linear": lambda: (F.linear, X, W),
    "matmul": lambda: (torch.matmul, X, W),
    "_convolution": lambda: (
        lambda x, w: torch._convolution(x, w, None, (1,), (0,), (1,), False, (0,), 1, False, False, True, True),
        SIGNAL,
        tensor(3, 2, 1),
    ),
    "convolution": lambda: (
        lambda x, w: torch.convolution(x, w, None, (1,), (0,), (1,), False, (0,), 1),
        SIGNAL,
        tensor(3, 2, 1),
    ),
}
FFT = (
    *("fft", "ifft", "fft2", "ifft2", "fftn", "ifftn"),
    *("rfft", "irfft", "rfft2", "irfft2", "rfftn", "irfftn", "hfft", "ihfft"),
)
FLOAT32_CALLS = {
    "log_softmax": lambda x, t: F.log_softmax(x, -1),
    "nll_loss": lambda x, t: torch.ops.aten.nll_loss(x, t),
    "nll_loss_nd": lambda x, t: F.nll_loss(x, t),
    "cross_entropy_loss": lambda x, t: F.cross_entropy(x, t),
    **{f"fft_{name}": functools.partial(lambda name, x, t: getattr(torch.fft, name)(x), name) for name in FFT},
}


def check(expected: str, function, *args, **options) -> None:
    """Compare a program's lowered graph with its golden text."""
    assert_expected_inline(lowered_text(function, *args, **options), expected, skip=1)


def calls_in(text: str) -> str:
    """Return the lines of a lowered graph that neither return nor are plain arguments."""
    return "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("return"))


def test_every_documented_lower_precision_op():
    texts = [calls_in(lowered_text(*call(), preserve_output_dtype=False)) for call in LOWER_PRECISION_CALLS.values()]
    assert_expected_inline(
        "\n".join(texts),
        """\
to: "bf16[1, 2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[3, 2, 1]" = l_w_.to(torch.bfloat16)
conv1d: "bf16[1, 3, 4]" = torch.conv1d(to, to_1)

to: "bf16[1, 2, 4, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[3, 2, 1, 1]" = l_w_.to(torch.bfloat16)
conv2d: "bf16[1, 3, 4, 4]" = torch.conv2d(to, to_1)

to: "bf16[1, 2, 4, 4, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[3, 2, 1, 1, 1]" = l_w_.to(torch.bfloat16)
conv3d: "bf16[1, 3, 4, 4, 4]" = torch.conv3d(to, to_1)

to: "bf16[2, 4, 4]" = l_args_0_.to(torch.bfloat16)
to_1: "bf16[2, 4, 4]" = l_args_1_.to(torch.bfloat16)
bmm: "bf16[2, 4, 4]" = torch.bmm(to, to_1)

to: "bf16[2, 4, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[2, 4, 4]" = l_w_.to(torch.bfloat16)
baddbmm: "bf16[2, 4, 4]" = torch.baddbmm(to, to, to_1)

to: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
addmm: "bf16[4, 4]" = to.addmm(to, to)

to: "bf16[2, 4]" = l_args_0_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_args_1_.to(torch.bfloat16)
linear: "bf16[2, 4]" = torch._C._nn.linear(to, to_1)

to: "bf16[2, 4]" = l_args_0_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_args_1_.to(torch.bfloat16)
matmul: "bf16[2, 4]" = torch.matmul(to, to_1)

to: "bf16[1, 2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[3, 2, 1]" = l_w_.to(torch.bfloat16)
_convolution: "bf16[1, 3, 4]" = torch._convolution(to, to_1, None, (1,), (0,), (1,), False, (0,), 1, False, False, True, True)

to: "bf16[1, 2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[3, 2, 1]" = l_w_.to(torch.bfloat16)
convolution: "bf16[1, 3, 4]" = torch.convolution(to, to_1, None, (1,), (0,), (1,), False, (0,), 1)
""",
    )


def test_every_documented_float32_op():
    target = torch.zeros(4, dtype=torch.int64)
    texts = []
    for call in FLOAT32_CALLS.values():
        text = lowered_text(lambda x, t, call=call: call(x @ x, t), tensor(4, 4), target)
        texts.append("".join(line + "\n" for line in text.splitlines()[2:-1]))
    assert_expected_inline(
        "".join(texts),
        """\
to_1: "f32[4, 4]" = matmul.to(torch.float32)
log_softmax: "f32[4, 4]" = torch.nn.functional.log_softmax(to_1, -1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
nll_loss: "f32[]" = torch.ops.aten.nll_loss(to_1, l_t_)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
nll_loss: "f32[]" = torch.nn.functional.nll_loss(to_1, l_t_)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
cross_entropy: "f32[]" = torch.nn.functional.cross_entropy(to_1, l_t_)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_fft: "c64[4, 4]" = torch._C._fft.fft_fft(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_ifft: "c64[4, 4]" = torch._C._fft.fft_ifft(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_fft2: "c64[4, 4]" = torch._C._fft.fft_fft2(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_ifft2: "c64[4, 4]" = torch._C._fft.fft_ifft2(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_fftn: "c64[4, 4]" = torch._C._fft.fft_fftn(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_ifftn: "c64[4, 4]" = torch._C._fft.fft_ifftn(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_rfft: "c64[4, 3]" = torch._C._fft.fft_rfft(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_irfft: "f32[4, 6]" = torch._C._fft.fft_irfft(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_rfft2: "c64[4, 3]" = torch._C._fft.fft_rfft2(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_irfft2: "f32[4, 6]" = torch._C._fft.fft_irfft2(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_rfftn: "c64[4, 3]" = torch._C._fft.fft_rfftn(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_irfftn: "f32[4, 6]" = torch._C._fft.fft_irfftn(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_hfft: "f32[4, 6]" = torch._C._fft.fft_hfft(to_1)
to_1: "f32[4, 4]" = matmul.to(torch.float32)
fft_ihfft: "c64[4, 3]" = torch._C._fft.fft_ihfft(to_1)
""",
    )


def test_float16():
    check(
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

    check(
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

    check(
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


def test_promote_in_every_mixture():
    texts = []
    for dtypes in (
        (BFLOAT16, BFLOAT16),
        (BFLOAT16, FLOAT32),
        (BFLOAT16, FLOAT16),
        (FLOAT16, FLOAT16),
        (FLOAT32, FLOAT32),
        (BFLOAT16, FLOAT64),
        (BFLOAT16, torch.int64),
    ):
        parts = [tensor(2, dtype=dtype) for dtype in dtypes]
        texts.append(calls_in(lowered_text(lambda a, b: torch.cat([a, b]), *parts)))
    assert_expected_inline(
        "".join(texts),
        """\
cat: "bf16[4]" = torch.cat([l_a_, l_b_])
to: "f32[2]" = l_a_.to(torch.float32)
cat: "f32[4]" = torch.cat([to, l_b_])
to: "f32[2]" = l_a_.to(torch.float32)
to_1: "f32[2]" = l_b_.to(torch.float32)
cat: "f32[4]" = torch.cat([to, to_1])
cat: "f16[4]" = torch.cat([l_a_, l_b_])
cat: "f32[4]" = torch.cat([l_a_, l_b_])
cat: "f64[4]" = torch.cat([l_a_, l_b_])
cat: "bf16[4]" = torch.cat([l_a_, l_b_])
""",
    )


def test_stack_of_a_lowered_value_and_an_input():
    check(
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


def test_nested_regions():
    def program(x, w):
        with torch.autocast("cpu", FLOAT16):
            a = x @ w
            with torch.autocast("cpu", enabled=False):
                b = x @ w
        return a, b, x @ w

    check(
        """\
to: "f16[2, 4]" = l_x_.to(torch.float16)
to_1: "f16[4, 4]" = l_w_.to(torch.float16)
a: "f16[2, 4]" = to @ to_1
b: "f32[2, 4]" = l_x_ @ l_w_
to_2: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_3: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
matmul_2: "bf16[2, 4]" = to_2 @ to_3
to_4: "f32[2, 4]" = matmul_2.to(torch.float32)
return (a, b, to_4)
""",
        program,
        X,
        W,
    )


def test_outputs_keep_their_recorded_dtypes():
    check(
        """\
to: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
matmul: "bf16[2, 4]" = to @ to_1
relu: "bf16[2, 4]" = matmul.relu()
to_2: "f32[2, 4]" = relu.to(torch.float32)
return (to_2,)
""",
        lambda x, w: (x @ w).relu(),
        X,
        W,
    )


def test_outputs_may_stay_low():
    check(
        """\
to: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
matmul: "bf16[2, 4]" = to @ to_1
relu: "bf16[2, 4]" = matmul.relu()
return (relu,)
""",
        lambda x, w: (x @ w).relu(),
        X,
        W,
        preserve_output_dtype=False,
    )


def test_one_cast_for_every_use():
    check(
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

    check(
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


def test_convolution_block():
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3), torch.nn.ReLU()).eval()
    check(
        """\
to: "bf16[1, 2, 4, 4]" = l_args_0_.to(torch.bfloat16)
to_1: "bf16[3, 2, 1, 1]" = l_fn_modules_0_parameters_weight_.to(torch.bfloat16)
to_2: "bf16[3]" = l_fn_modules_0_parameters_bias_.to(torch.bfloat16)
input_1: "bf16[1, 3, 4, 4]" = torch.conv2d(to, to_1, to_2, (1, 1), (0, 0), (1, 1), 1)
input_2: "bf16[1, 3, 4, 4]" = torch.nn.functional.batch_norm(input_1, l_fn_modules_1_buffers_running_mean_, l_fn_modules_1_buffers_running_var_, l_fn_modules_1_parameters_weight_, l_fn_modules_1_parameters_bias_, False, 0.1, 1e-05)
input_3: "bf16[1, 3, 4, 4]" = torch.nn.functional.relu(input_2, inplace = False)
to_3: "f32[1, 3, 4, 4]" = input_3.to(torch.float32)
return (to_3,)
""",
        model,
        IMAGE,
    )


def test_attention_block():
    def attention(x, qkv, out):
        q, k, v = F.linear(x, qkv).view(1, 2, 3, 2, 2).permute(2, 0, 3, 1, 4)
        return F.linear(F.scaled_dot_product_attention(q, k, v).flatten(2), out) + x

    check(
        """\
to: "bf16[1, 2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[12, 4]" = l_qkv_.to(torch.bfloat16)
linear: "bf16[1, 2, 12]" = torch._C._nn.linear(to, to_1)
view: "bf16[1, 2, 3, 2, 2]" = linear.view(1, 2, 3, 2, 2)
permute: "bf16[3, 1, 2, 2, 2]" = view.permute(2, 0, 3, 1, 4)
q: "bf16[1, 2, 2, 2]" = permute[0]
k: "bf16[1, 2, 2, 2]" = permute[1]
v: "bf16[1, 2, 2, 2]" = permute[2]
scaled_dot_product_attention: "bf16[1, 2, 2, 2]" = torch._C._nn.scaled_dot_product_attention(q, k, v)
flatten: "bf16[1, 2, 4]" = scaled_dot_product_attention.flatten(2)
to_2: "bf16[4, 4]" = l_out_.to(torch.bfloat16)
linear_1: "bf16[1, 2, 4]" = torch._C._nn.linear(flatten, to_2)
to_3: "f32[1, 2, 4]" = linear_1.to(torch.float32)
add: "f32[1, 2, 4]" = to_3 + l_x_
return (add,)
""",
        attention,
        tensor(1, 2, 4),
        tensor(12, 4),
        tensor(4, 4),
    )


def test_training_step():
    w, b = W.clone().requires_grad_(), tensor(4).requires_grad_()

    def loss(x, w, b, t):
        hidden = F.gelu(F.linear(x, w, b))
        return F.cross_entropy(F.linear(hidden, w) + F.linear(hidden, w), t)

    check(
        """\
to: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
to_2: "bf16[4]" = l_b_.to(torch.bfloat16)
linear: "bf16[2, 4]" = torch._C._nn.linear(to, to_1, to_2)
hidden: "bf16[2, 4]" = torch._C._nn.gelu(linear)
linear_1: "bf16[2, 4]" = torch._C._nn.linear(hidden, to_1)
linear_2: "bf16[2, 4]" = torch._C._nn.linear(hidden, to_1)
add: "bf16[2, 4]" = linear_1 + linear_2
to_3: "f32[2, 4]" = add.to(torch.float32)
cross_entropy: "f32[]" = torch.nn.functional.cross_entropy(to_3, l_t_)
return (cross_entropy,)
""",
        loss,
        X,
        w,
        b,
        torch.zeros(2, dtype=torch.int64),
    )


def test_composite_is_cast_inside():
    check(
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


def test_grad_modes_do_not_share_casts_of_what_requires_grad():
    w = W.clone().requires_grad_()

    def program(x, w):
        with torch.no_grad():
            a = F.linear(x, w)
        return a, F.linear(x, w)

    check(
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


def test_dynamic_sizes():
    x = tensor(5, 4)
    torch._dynamo.mark_dynamic(x, 0)
    check(
        """\
to: "bf16[s77, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
matmul: "bf16[s77, 4]" = to @ to_1
to_2: "f32[s77, 4]" = matmul.to(torch.float32)
cat: "f32[2*s77, 4]" = torch.cat([to_2, l_x_])
view: "f32[2, s77, 4]" = cat.view(2, -1, 4)
return (view,)
""",
        lambda x, w: torch.cat([x @ w, x]).view(2, -1, 4),
        x,
        W,
    )


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

    check(
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

    check(
        """\
y: "f32[2, 4]" = l_x_ + 1
increment_default = torch.ops.xpu_amp_goldens.increment.default(y)
return (y,)
""",
        program,
        X,
        W,
    )
