"""Tensors of other layouts, dtypes, devices and classes: handled as eager code does, or refused as it does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing._internal.two_tensor import TwoTensor

import xpu_amp_dynamo
from tests.support.comparison import INNER_BACKENDS, assert_compiled_equals_eager, compile_program, relative_error

BFLOAT16, FLOAT32, FLOAT8, INT64 = torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.int64

pytestmark = [
    # Dynamo looks at `.grad` of a non-leaf input behind a graph break, torch 2.13.0.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions.* deprecated"),
    pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex"),
    pytest.mark.filterwarnings("ignore:Sparse.*beta state"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage"),
]


def region():
    return torch.autocast("cpu", BFLOAT16)


def matrix(*sizes):
    return torch.randn(*(sizes or (8, 8)), generator=torch.Generator().manual_seed(0))


def log_softmax_of_product(x, w):
    y = x @ w
    return y, torch.log_softmax(y, -1)


def jagged():
    return torch.nested.nested_tensor([matrix(3, 8), matrix(5, 8)], layout=torch.jagged)


W = matrix().flip(0)
CASES = {
    "complex": (lambda z, w: (z @ z, z.real @ w), lambda: matrix().to(torch.complex64), [torch.complex64, BFLOAT16]),
    "float64": (lambda x, w: (x @ w.double(), x.log_softmax(-1)), lambda: matrix().double(), 2 * [torch.float64]),
    "integers": (lambda i, w: (i @ i, torch.cat([i, w])), lambda: torch.ones(8, 8, dtype=INT64), [INT64, FLOAT32]),
    "float8": (lambda f, w: (torch.cat([f, f]), f.float() @ w), lambda: matrix().to(FLOAT8), [FLOAT8, BFLOAT16]),
    "zero size": (log_softmax_of_product, lambda: matrix(0, 8), [BFLOAT16, FLOAT32]),
    "zero size inside": (lambda x, w: x[:, :0] @ w[:0], matrix, [BFLOAT16]),
    "zero dim": (lambda s, w: (s * (w @ w), torch.log_softmax(s, 0)), lambda: torch.tensor(2.0), [BFLOAT16, FLOAT32]),
    "transposed": (log_softmax_of_product, lambda: matrix().t(), [BFLOAT16, FLOAT32]),
    "strided": (log_softmax_of_product, lambda: matrix(16, 16)[::2, ::2], [BFLOAT16, FLOAT32]),
    "expanded": (log_softmax_of_product, lambda: matrix(1, 8).expand(8, 8), [BFLOAT16, FLOAT32]),
    "batch of one": (log_softmax_of_product, lambda: matrix(1, 1, 8), [BFLOAT16, FLOAT32]),
}


@pytest.mark.parametrize("name", CASES)
def test_like_eager(name):
    program, make, dtypes = CASES[name]
    outcome = assert_compiled_equals_eager(program, (make(), W), region=region)
    assert [t.dtype for t in outcome[: len(dtypes)]] == dtypes


@pytest.mark.parametrize("inner_backend", INNER_BACKENDS)
def test_channels_last(inner_backend):
    x = matrix(2, 3, 8, 8).to(memory_format=torch.channels_last)
    w = matrix(4, 3, 3, 3)
    with torch.no_grad():
        y, *_ = assert_compiled_equals_eager(F.conv2d, (x, w), region=region, inner_backends=[inner_backend])
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("inner_backend", INNER_BACKENDS)
@pytest.mark.parametrize("make", [lambda: matrix().relu().to_sparse()], ids=["coo"])
def test_sparse(make, inner_backend):
    """Dynamo leaves them to eager code, where autocast casts their values."""
    xpu_amp_dynamo.install(device_type="cpu")

    def program(s, w):
        return torch.log_softmax(torch.sparse.mm(s, w), -1), w @ w

    with region():
        expected = program(make(), W)
        actual = compile_program(program, inner_backend, fullgraph=False)(make(), W)
    assert [t.dtype for t in actual] == [t.dtype for t in expected] == [FLOAT32, BFLOAT16]
    for one, other in zip(actual, expected, strict=True):
        assert relative_error(one, other) < 0.01


def test_sparse_gradients_of_an_embedding():
    weight = torch.nn.Parameter(matrix())

    def program(i):
        return F.embedding(i, weight, sparse=True) @ W

    assert_compiled_equals_eager(
        program, [torch.tensor([0, 3])], region=region, weights=[weight], inner_backends=["eager"]
    )
    assert weight.grad is not None
    assert weight.grad.is_sparse
    assert weight.grad.dtype is FLOAT32


def test_sparse_layout_without_a_kernel_is_refused_as_in_eager():
    xpu_amp_dynamo.install(device_type="cpu")
    compiled = compile_program(lambda s, w: s @ w, fullgraph=False)
    for call in (lambda s, w: s @ w, compiled):
        with region(), pytest.raises(NotImplementedError, match="BFloat16"):
            call(matrix().to_sparse_csr(), W)


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_nested(inner_backend):
    xpu_amp_dynamo.install(device_type="cpu")

    def program(x, w):
        y = F.linear(x, w)
        return y, torch.log_softmax(y, -1)

    x = jagged()
    with region():
        expected = program(x, W)
        actual = compile_program(program, inner_backend)(x, W)
    assert [t.dtype for t in actual] == [BFLOAT16, FLOAT32]
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one.values(), other.values())
    without = compile_program(program, inner_backend)(x, W)
    assert [t.dtype for t in without] == [FLOAT32, FLOAT32]


@pytest.mark.parametrize("inner_backend", ["eager", "inductor"])
def test_quantized(inner_backend):
    """Dynamo leaves quantized tensors to eager code; what comes out of them is cast."""
    xpu_amp_dynamo.install(device_type="cpu")

    def program(q, w):
        return q.dequantize() @ w

    q = torch.quantize_per_tensor(matrix(), 0.1, 0, torch.qint8)
    with region():
        expected = program(q, W)
        actual = compile_program(program, inner_backend, fullgraph=False)(q, W)
    assert actual.dtype is expected.dtype is BFLOAT16
    assert relative_error(actual, expected) < 0.01


@pytest.mark.parametrize("inner_backend", INNER_BACKENDS)
def test_float8_product_is_refused_as_in_eager_and_scaled_runs(inner_backend):
    a, b = matrix(16, 16).to(FLOAT8), matrix(16, 16).to(FLOAT8).t()

    def product(a, w):
        return a @ w

    def scaled(a, b, one):
        return torch._scaled_mm(a, b, one, one, out_dtype=BFLOAT16) @ b.float()

    assert_compiled_equals_eager(scaled, (a, b, torch.tensor(1.0)), region=region, inner_backends=[inner_backend])
    with region():
        for call in (product, compile_program(product, inner_backend)):
            with pytest.raises(RuntimeError, match="Float8_e4m3fn != c10::BFloat16"):
                call(matrix().to(FLOAT8), W)


@pytest.mark.parametrize("inner_backend", INNER_BACKENDS)
def test_meta_tensors_are_of_another_device(inner_backend):
    def program(x, w):
        elsewhere = torch.empty_like(x, device="meta") @ torch.empty_like(w, device="meta")
        return x @ w, torch.zeros_like(elsewhere, device="cpu")

    outcome = assert_compiled_equals_eager(program, (matrix(), W), region=region, inner_backends=[inner_backend])
    assert [t.dtype for t in outcome[:2]] == [BFLOAT16, FLOAT32]
    if inner_backend != "inductor":  # which misorders its graph of nothing but meta tensors, torch 2.13.0
        with region():
            y, _ = compile_program(log_softmax_of_product, inner_backend)(W.to("meta"), W.to("meta"))
        assert y.dtype is FLOAT32


@pytest.mark.parametrize("write", [lambda x: x.mul_(2), lambda x: x[1:].add_(1), lambda x: x.t().relu_()])
@pytest.mark.parametrize("inner_backend", INNER_BACKENDS)
def test_one_tensor_given_twice(inner_backend, write):
    """A cast of one name must not be used after a write through the other."""
    xpu_amp_dynamo.install(device_type="cpu")

    def program(x, same, w):
        before = same @ w
        write(x)
        return before, same @ w

    def run(call):
        x = matrix()
        with region():
            return [*call(x, x, W), x]

    expected, actual = run(program), run(compile_program(program, inner_backend))
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype is other.dtype
        assert relative_error(one, other) < 0.01
    assert not torch.equal(*actual[:2])


@pytest.mark.parametrize("inner_backend", INNER_BACKENDS)
def test_a_base_and_its_view(inner_backend):
    xpu_amp_dynamo.install(device_type="cpu")

    def program(base, view, w):
        before = view @ w
        base.mul_(2)
        return before, view @ w, torch.cat([view, before])

    def run(call):
        base = matrix()
        with region():
            return [*call(base, base[2:6].t().t(), W), base]

    expected, actual = run(program), run(compile_program(program, inner_backend))
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype is other.dtype
        assert relative_error(one, other) < 0.01


@pytest.mark.parametrize("inner_backend", INNER_BACKENDS)
def test_outputs_that_are_inputs_or_views_of_them(inner_backend):
    def program(x, w):
        return x, x.t(), (x @ w).t(), w[0]

    def aliases(call):
        x = matrix()
        with region():
            outputs = call(x, W)
        return [t.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for t in outputs]

    xpu_amp_dynamo.install(device_type="cpu")
    assert aliases(program) == aliases(compile_program(program, inner_backend)) == [True, True, False, False]


@pytest.mark.parametrize("inner_backend", INNER_BACKENDS)
def test_inputs_that_require_grad_and_are_mutated(inner_backend):
    """The gradient flows through the write, in the dtype of what is written to."""

    def program(x, w, buffer):
        x = x * 1
        x.add_(x @ w)
        x[:2] = (x @ w)[2:4]
        buffer.copy_(x @ w)
        return x @ w, torch.log_softmax(x, -1)

    inputs = matrix().requires_grad_(), W.clone().requires_grad_(), torch.zeros(8, 8)
    outcome = assert_compiled_equals_eager(program, inputs, region=region, inner_backends=[inner_backend])
    assert [t.dtype for t in outcome[:2]] == [BFLOAT16, FLOAT32]


@pytest.mark.parametrize("inner_backend", INNER_BACKENDS)
def test_a_leaf_that_is_mutated_without_grad(inner_backend):
    """As an optimizer does in the graph; the float32 leaf stays one."""
    xpu_amp_dynamo.install(device_type="cpu")

    def program(x, w):
        y = x @ w
        with torch.no_grad():
            w.sub_(0.1 * (x.t() @ y))
        return y.float().square().sum() + (x @ w).float().square().sum()

    def run(call):
        w = W.clone().requires_grad_()
        with region():
            y = call(matrix(), w)
        return y, w.detach()

    expected, actual = run(program), run(compile_program(program, inner_backend))
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype is other.dtype is FLOAT32
        assert relative_error(one, other) < 0.01


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager", "inductor"])
def test_wrapper_subclass(inner_backend):
    """Both halves of a tensor that is made of two."""
    xpu_amp_dynamo.install(device_type="cpu")
    x, w = TwoTensor(matrix(), matrix() + 1), torch.nn.Parameter(TwoTensor(W.clone(), W - 1))

    def program(x, w):
        return log_softmax_of_product(x, w)

    with region():
        expected = program(x, w)
        actual = compile_program(program, inner_backend, weights="cached")(x, w)
    for one, other in zip(actual, expected, strict=True):
        assert type(one) is TwoTensor
        assert one.dtype is other.dtype
        assert relative_error(one.a, other.a) < 0.01
        assert relative_error(one.b, other.b) < 0.01


class Named(torch.Tensor):
    """A tensor of the user's own class, which keeps its class through ops."""


def test_torch_function_subclass():
    """Not with AOTAutograd, whose look for custom ops raises TypeError for such, torch 2.13.0."""
    xpu_amp_dynamo.install(device_type="cpu")
    x = matrix().as_subclass(Named)
    with region():
        expected = log_softmax_of_product(x, W)
        actual = compile_program(log_softmax_of_product)(x, W)
    for one, other in zip(actual, expected, strict=True):
        assert type(one) is type(other) is Named
        assert one.dtype is other.dtype
        assert relative_error(one.as_subclass(torch.Tensor), other.as_subclass(torch.Tensor)) < 0.01
