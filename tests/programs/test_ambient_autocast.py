"""Stock ``torch.autocast`` around a compiled call: its state counts, our policy decides, nothing is cast twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._inductor.utils import run_and_get_code

import xpu_amp_dynamo
from tests.support.comparison import assert_compiled_equals_eager, assert_same, compile_program, outcome_of
from xpu_amp_dynamo import loss_scaling

# Small enough for the gradient of a squared sum of exponentials in float16.
_generator = torch.Generator().manual_seed(0)
MATRICES = (
    torch.randn(6, 8, generator=_generator) / 4,
    torch.randn(8, 8, generator=_generator).div(4).requires_grad_(),
)

# Dynamo looks at `.grad` of a non-leaf input behind a graph break, torch 2.13.0.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:float16 training needs loss scaling"),
]


def program(x, w):
    y = F.linear(x, w)
    return y, torch.softmax(y, -1), torch.log_softmax(y, -1), torch.cat([y, x]), y.exp().sum()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype_of_the_region(dtype):
    def region():
        return torch.autocast("cpu", dtype)

    loss_scaling._warn_once.cache_clear()
    context = pytest.warns(UserWarning, match="GradScaler") if dtype is torch.float16 else region()
    with context:
        outcome = assert_compiled_equals_eager(program, MATRICES, region=region)
    assert [t.dtype for t in outcome[:5]] == [dtype, dtype, torch.float32, torch.float32, dtype]


def test_disabled_region_and_options():
    """A region around the call decides; where there is none, the options do."""
    x, w = MATRICES
    compiled = compile_program(lambda x, w: F.linear(x, w), preserve_output_dtype=False)
    with torch.autocast("cpu", torch.float16):
        assert compiled(x, w).dtype is torch.float16
    assert compiled(x, w).dtype is torch.bfloat16
    compiled = compile_program(lambda x, w: F.linear(x, w), enabled=False, preserve_output_dtype=False)
    assert compiled(x, w).dtype is torch.float32
    with torch.autocast("cpu", torch.float16):
        assert compiled(x, w).dtype is torch.float16


@pytest.mark.parametrize("inner_backend", ["eager", "aot_eager"])
def test_stock_policy_equals_stock(inner_backend, simulated_xpu):
    """``policy="torch"`` compiled equals eager code under PyTorch's own kernels for XPUs, which nobody replaced."""
    x, w = (t.detach().to("xpu").requires_grad_(t.requires_grad) for t in MATRICES)

    def call(x, w):
        y = F.conv1d(x[None], w[:6, :6, None]) @ w
        return y, F.gelu(y), torch.bmm(y, y.mT), torch.softmax(y, -1), F.mse_loss(y, x[None]), F.layer_norm(y, (8,))

    def within(function):
        def run(*inputs):
            with torch.autocast("xpu", torch.bfloat16):
                return function(*inputs)

        return run

    assert xpu_amp_dynamo.installed_policy("xpu") is None
    expected = outcome_of(within(call), (x, w))
    assert [t.dtype for t in expected[2:5]] == [torch.bfloat16, torch.float32, torch.float32]
    compiled = compile_program(call, inner_backend, policy="torch")
    assert_same(outcome_of(within(compiled), (x, w)), expected)


def test_our_policy_decides_though_stock_kernels_are_installed():
    """Captured under stock kernels, log_softmax of bfloat16 is bfloat16; the policy makes it float32 all the same."""
    x, w = MATRICES
    assert xpu_amp_dynamo.installed_policy("cpu") is None
    with xpu_amp_dynamo.record_lowerings() as reports, torch.autocast("cpu", torch.bfloat16):
        compile_program(lambda x, w: torch.log_softmax(F.linear(x, w), -1))(x, w)
    assert dict(reports[0].ops) == {"lower_precision": 1, "float32": 1}


def test_kernels_that_are_not_fused_do_not_cast_again():
    """Convolutions and fallbacks are calls of ATen at run time, where a live region would cast their float32 inputs."""
    policy = xpu_amp_dynamo.Policy.named("xpu").with_ops(leave=["conv2d", "convolution"])

    def call(x, w):
        y = F.conv2d(x, w)
        return y, torch.nonzero(y > 0).sum()

    x, w = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3, requires_grad=True)
    # Stock kernels are installed, so the output was captured as bfloat16.
    options: dict[str, Any] = {"policy": policy, "preserve_output_dtype": False}
    compiled = torch.compile(call, backend="xpu_amp", dynamic=True, options=options)
    y, count, *_, gradient = outcome_of(call, (x, w))
    with torch.autocast("cpu", torch.bfloat16):
        actual, code = run_and_get_code(outcome_of, compiled, (x, w))
    assert "convolution" in "".join(code)
    for one, other in zip((*actual[:2], actual[-1]), (y, count, gradient), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inner_backend", ["aot_eager", "inductor"])
def test_backward_inside_a_region_casts_nothing_again(inner_backend):
    """Calling backward in a float16 region must not run the backward's float32 and bfloat16 products in float16."""
    x, w = torch.randn(4, 8), torch.randn(8, 8, requires_grad=True)

    def gradient(backward_region):
        w.grad = None
        compiled = compile_program(lambda x, w: (F.linear(x, w) ** 2).sum(), inner_backend)
        with torch.autocast("cpu", torch.bfloat16):
            loss = compiled(x * 1000, w)
        with backward_region:
            loss.backward()
        return w.grad

    outside = gradient(torch.autocast("cpu", enabled=False))
    torch._dynamo.reset()
    inside = gradient(torch.autocast("cpu", torch.float16))
    assert inside.isfinite().all()
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("inner_backend", ["aot_eager", "inductor"])
def test_backward_of_a_disabled_region_is_float32(inner_backend):
    """AOTAutograd traces backward under the state around the call; 300 ** 4 overflows float16."""

    def call(x, w):
        with torch.autocast("cpu", enabled=False):
            return (x @ w * 300) @ (w * 300)

    x, w = torch.randn(4, 4), torch.randn(4, 4, requires_grad=True)
    call(x, w).sum().backward()
    expected, w.grad = w.grad, None
    with torch.autocast("cpu", torch.float16):
        y = compile_program(call, inner_backend)(x, w)
    y.sum().backward()
    torch.testing.assert_close(w.grad, expected)
