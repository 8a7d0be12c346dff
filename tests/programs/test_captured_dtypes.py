"""Programs without a region: what Python made of their dtypes at capture holds when listed ops run lower."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch.utils import _pytree as pytree

import xpu_amp_dynamo
from tests.support.captured_graphs import casts_in, lowered_graphs
from tests.support.comparison import compile_program
from tests.support.tensors import assert_near, matrices
from tests.support.versions import only_since

LOWER = (torch.bfloat16, torch.float16)


MASKS = {
    "masked_fill": lambda s, m: s.masked_fill(m, torch.finfo(s.dtype).min),
    "masked_fill_": lambda s, m: s.masked_fill_(m, torch.finfo(s.dtype).min),
    "masked_fill_ of a view": lambda s, m: s.view(-1).masked_fill_(m.view(-1), torch.finfo(s.dtype).min).view_as(s),
    "where a number": lambda s, m: torch.where(m, torch.finfo(s.dtype).min, s),
    "where a tensor": lambda s, m: torch.where(m, torch.tensor(torch.finfo(s.dtype).min), s),
    "where full_like": lambda s, m: torch.where(m, torch.full_like(s, torch.finfo(s.dtype).min), s),
    "zeros_like filled": lambda s, m: s + torch.zeros_like(s).masked_fill_(m, torch.finfo(s.dtype).min),
    "setitem": lambda s, m: torch.Tensor.index_put_(s, (m,), torch.tensor(torch.finfo(s.dtype).min)),
    "additive": lambda s, m: s + m.to(s.dtype) * torch.finfo(s.dtype).min,
    "clamp": lambda s, m: s.clamp(min=torch.finfo(s.dtype).min).masked_fill(m, -1e9),
    "pad": lambda s, m: F.pad(s, (0, 1), value=torch.finfo(s.dtype).min)[:, :-1].masked_fill(m, -1e9),
    "small": lambda s, m: (s / (s.norm(dim=-1, keepdim=True) * 0 + 1e-8)).masked_fill(m, -1e9),
}


@pytest.mark.parametrize("dtype", LOWER, ids=str)
@pytest.mark.parametrize("kind", MASKS)
def test_constants_of_captured_dtypes_stay_finite(kind, dtype):
    def program(x, w, mask):
        return torch.softmax(MASKS[kind](x @ w, mask), -1) @ w

    x, w = matrices((6, 8), (8, 8))
    mask = torch.ones(6, 8, dtype=torch.bool).triu(3)
    mask[0] = True
    assert_near(compile_program(program, dtype=dtype)(x, w, mask), program(x, w, mask), 0.05)


@pytest.mark.parametrize(
    "op",
    [
        torch.linalg.svdvals,
        torch.linalg.inv,
        torch.linalg.slogdet,
        torch.matrix_exp,
        torch.det,
        lambda h: torch.linalg.qr(h)[1].abs(),
        lambda h: torch.linalg.eigvalsh(h + h.mT),
        lambda h: torch.linalg.solve(h, torch.ones(8)),
        lambda h: torch.linalg.matrix_norm(h, "nuc"),
        lambda h: torch.cdist(h, torch.ones(3, 8)),
        lambda h: torch.cdist(h, h, p=1.0),
        torch.pdist,
        pytest.param(lambda h: torch.quantile(h, 0.5), marks=only_since("2.12", "quantile is not captured")),
        lambda h: torch.complex(h, h).abs(),
        lambda h: torch.special.bessel_j0(h),
        lambda h: F.avg_pool3d(h.view(1, 2, 4, 8), 2),
        lambda h: F.interpolate(h.view(1, 1, 8, 8), size=(4, 4), mode="bilinear", antialias=True),
        lambda h: torch.div(h, 0.3, rounding_mode="floor"),
    ],
)
def test_ops_without_low_kernels_run_as_captured(op):
    def program(x, w):
        return op(x @ w)

    x, w = torch.eye(8) + torch.arange(64).view(8, 8) / 64, torch.eye(8)
    product = (x.bfloat16() @ w.bfloat16()).float()
    for actual, expected in zip(
        pytree.tree_leaves(compile_program(program)(x, w)),
        pytree.tree_leaves(op(product)),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("generated", ["weight", "bias", "input", "input and weight"])
@pytest.mark.parametrize("norm", ["instance_norm", "batch_norm"])
def test_norms_with_generated_parameters_read_them_as_captured(norm, generated):
    def program(x, z, w, b):
        scale = z @ w if "weight" in generated else b
        shift = z @ w if generated == "bias" else b
        x = x @ x.mT if "input" in generated else x
        if norm == "instance_norm":
            return F.instance_norm(x, weight=scale, bias=shift)
        mean, variance = torch.zeros(5), torch.ones(5)
        return F.batch_norm(x, mean, variance, scale, shift, training=True), mean, variance

    args = matrices((3, 5, 5), (7,), (7, 5), (5,))
    expected = pytree.tree_leaves(program(*args))
    for actual, want in zip(pytree.tree_leaves(compile_program(program)(*args)), expected, strict=True):
        assert_near(actual, want)


@pytest.mark.parametrize("region", [True, False])
def test_a_renormalised_table_beside_narrow_weights(region):
    def program(x, w, table):
        index = torch.arange(8).view(2, 4) % 5
        return F.embedding_bag(index, table, mode="sum", max_norm=1.0, per_sample_weights=x @ w), table

    x, w, table = matrices((2, 4), (4, 4), (5, 8))
    xpu_amp_dynamo.install(device_type="cpu")
    with torch.autocast("cpu", torch.bfloat16) if region else contextlib.nullcontext():
        expected = program(x, w, table.clone())
        actual = compile_program(program)(x, w, table.clone())
    for got, want in zip(actual, expected, strict=True):
        assert_near(got, want)


def test_python_branches_on_captured_dtypes():
    def program(x, w):
        h = x @ w
        buffer = torch.zeros(h.shape, dtype=h.dtype)
        buffer[torch.tensor([1, 0])] = h[:2].sum(0, dtype=h.dtype).expand(2, -1)
        return buffer + h if h.dtype is torch.float32 else buffer

    assert_near(compile_program(program)(*(args := matrices((4, 8), (8, 8)))), program(*args))


def test_float16_values_take_no_arithmetic_without_the_range_of_float32():
    def program(x, w):
        h = x @ w * 100
        return h * torch.rsqrt((h * h).mean(-1, keepdim=True))

    args = matrices((4, 64), (64, 64))
    assert_near(compile_program(program, dtype=torch.float16)(*args), program(*args))


def test_a_disabled_region_reads_captured_dtypes():
    def program(x, w):
        h = x @ w
        with torch.autocast("cpu", enabled=False):
            return h * 3 @ w

    (gm,) = lowered_graphs(program, *(args := matrices((4, 8), (8, 8))))
    assert casts_in(gm) == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert_near(compile_program(program)(*args), program(*args))


def test_calls_behind_a_region_read_what_it_made():
    """Inside, capture recorded bfloat16; what is outside may rely on that, and not on float32."""

    def program(x, w):
        with torch.autocast("cpu", torch.bfloat16):
            h = x @ w
        return h.dtype, torch.where(h > 0, torch.finfo(h.dtype).min, h)

    dtype, y = compile_program(program)(*(args := matrices((4, 8), (8, 8))))
    assert dtype is y.dtype is torch.bfloat16
    assert torch.equal(y, program(*args)[1])


@pytest.mark.parametrize("policy", ["torch", "ipex"])
@pytest.mark.parametrize(
    "program", [lambda x: 1 / x, lambda x: 2 - x, lambda x: x / 3, lambda x: 2**x, lambda x: x % 2]
)
def test_operators_are_lowered_as_the_ops_that_they_call(program, policy):
    x = torch.rand(8, dtype=torch.bfloat16) + 0.5
    policy = xpu_amp_dynamo.Policy.named(policy)
    xpu_amp_dynamo.install(policy, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        expected, actual = program(x), compile_program(program, policy=policy)(x)
    assert actual.dtype is expected.dtype
    assert torch.equal(actual, expected)


def test_bitwise_operators_write_to_nothing():
    def program(x, w):
        mask = x > 0
        return torch.where(mask & (w > 0) | ~mask, x @ w, w @ x)

    assert_near(compile_program(program)(*(args := matrices((8, 8), (8, 8)))), program(*args))


SATURATING = {
    "binary cross entropy": lambda h: F.binary_cross_entropy(torch.sigmoid(h), torch.zeros_like(h), reduction="none"),
    "one minus tanh squared": lambda h: torch.log(1 - torch.tanh(h / 2) ** 2 + 1e-6),
    "clamped cosine": lambda h: torch.acos((h / 12).clamp(-1 + 1e-4, 1 - 1e-4)),
    "clamped probability": lambda h: torch.log(1 - torch.sigmoid(h).clip(1e-6, 1 - 1e-6)),
    "hardtanh": lambda h: torch.atanh(F.hardtanh(h / 12, -1 + 1e-4, 1 - 1e-4)),
    "just below one": lambda h: torch.atanh(torch.tanh(h) * (1 - 1e-4)),
    "linear attention": lambda h: torch.log(F.elu(h) + 1),
}


@pytest.mark.filterwarnings("ignore:float16 training needs loss scaling")
@pytest.mark.parametrize("dtype", LOWER, ids=str)
@pytest.mark.parametrize("kind", SATURATING)
def test_distances_to_one_survive(kind, dtype):
    """The product is exact in both dtypes; of what saturates behind it, float32 programs take the distance to 1."""

    def program(x):
        return SATURATING[kind](x @ torch.eye(8))

    x = torch.tensor([[-12.0, -8, -6, -1, 1, 6, 8, 12]], requires_grad=True)
    expected, actual = program(x), compile_program(program, dtype=dtype)(x)
    assert_near(actual, expected)
    assert_near(torch.autograd.grad(actual.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0])
