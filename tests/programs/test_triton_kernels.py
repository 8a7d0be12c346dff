"""A Triton kernel of the user's own, on the simulated XPU."""

from __future__ import annotations

import contextlib

import pytest
import torch
import triton
import triton.language as tl

import xpu_amp_dynamo
from tests.support.comparison import relative_error

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


@triton.jit  # type: ignore[untyped-decorator]
def scaled_sum_kernel(x, y, out, size, scale: tl.constexpr, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < size
    total = tl.load(x + offsets, mask=inside).to(tl.float32) * scale + tl.load(y + offsets, mask=inside).to(tl.float32)
    tl.store(out + offsets, total, mask=inside)


def scaled_sum(x, y):
    """Return 2 x + y in the dtype of ``x``."""
    out = torch.empty_like(x)
    scaled_sum_kernel[(triton.cdiv(x.numel(), 32),)](x, y, out, x.numel(), 2.0, BLOCK=32)
    return out


def program(x, w):
    y = x @ w
    return scaled_sum(y, y * y), torch.log_softmax(y, -1)


def reference(x, w):
    y = (x.cpu().bfloat16() @ w.cpu().bfloat16()).float()
    return 2 * y + y * y, torch.log_softmax(y, -1)


@pytest.mark.parametrize("region", [True, False], ids=["region", "none"])
def test_kernel_gets_what_it_was_captured_with(region, simulated_xpu):
    """In a region the product's bfloat16; in a float32 program float32, though the product runs in bfloat16."""
    xpu_amp_dynamo.install()
    x, w = torch.randn(8, 8).to("xpu"), torch.randn(8, 8).to("xpu")
    compiled = torch.compile(program, backend="xpu_amp", fullgraph=True)
    around = torch.autocast("xpu", BFLOAT16) if region else contextlib.nullcontext()
    with around, xpu_amp_dynamo.record_lowerings() as reports:
        outputs = compiled(x, w)
    assert reports[0].ops["lower_precision"] == reports[0].ops["float32"] == 1
    assert [t.dtype for t in outputs] == [BFLOAT16 if region else FLOAT32, FLOAT32]
    for actual, expected in zip(outputs, reference(x, w), strict=True):
        assert relative_error(actual.cpu(), expected) < 0.01


@triton.jit  # type: ignore[untyped-decorator]
def increment_kernel(x, size, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    inside = offsets < size
    tl.store(x + offsets, tl.load(x + offsets, mask=inside) + 1, mask=inside)


def test_kernel_that_writes_to_its_input(simulated_xpu):
    """A cast made before the write must not be used after it."""

    def program(x, w):
        before = x @ w
        increment_kernel[(1,)](x, x.numel(), BLOCK=64)
        return before, x @ w

    x, w = torch.randn(8, 8), torch.randn(8, 8)
    on_xpu = x.to("xpu")
    before, after = torch.compile(program, backend="xpu_amp", fullgraph=True)(on_xpu, w.to("xpu"))
    assert relative_error(before.cpu(), x @ w) < 0.01
    assert relative_error(after.cpu(), (x + 1) @ w) < 0.01
    assert torch.equal(on_xpu.cpu(), x + 1)


def test_kernel_that_writes_to_a_product(simulated_xpu):
    """The write must reach all views of it, though the product runs in another dtype than the kernel is to get."""

    def program(x, w):
        y = x @ w
        row = y[1]
        increment_kernel[(1,)](y, y.numel(), BLOCK=64)
        return y, row, torch.relu(y)

    x, w = torch.randn(8, 8), torch.randn(8, 8)
    y, row, positive = torch.compile(program, backend="xpu_amp", fullgraph=True)(x.to("xpu"), w.to("xpu"))
    assert y.dtype is row.dtype is positive.dtype is FLOAT32
    expected = (x.bfloat16() @ w.bfloat16()).float() + 1
    for actual, wanted in ((y, expected), (row, expected[1]), (positive, expected.relu())):
        assert torch.equal(actual.cpu(), wanted)
