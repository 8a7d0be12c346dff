"""``torch.xpu.amp``: what IPEX's tests and documentation did with it, on a simulated XPU."""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any

import pytest
import torch

import xpu_amp_dynamo
from xpu_amp_dynamo.errors import ForeignExtensionError, InvalidOptionError, UnknownPolicyError, UnsupportedDtypeError

# The checker of types knows no names that are put in there.
XPU: Any = torch.xpu
BFLOAT16, FLOAT16, FLOAT32 = torch.bfloat16, torch.float16, torch.float32


def installed_name():
    policy = xpu_amp_dynamo.installed_policy("xpu")
    return policy and policy.name


def convolutions():
    """Return two convolutions with a pooling between them, whose op no list of the policy has."""
    conv = torch.nn.Conv2d
    layers = conv(3, 8, 7, 2, 3, bias=False), torch.nn.AvgPool2d(3, 1, 1), conv(8, 2, 3, 1, 1, bias=False)
    return torch.nn.Sequential(*layers)


def relative_error(value, reference):
    return ((value.cpu().double() - reference.double()).norm() / reference.double().norm()).item()


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
def test_forward_and_backward_of_convolutions(xpu, dtype):
    model, x = convolutions(), torch.randn(2, 3, 8, 6, requires_grad=True)
    expected = model(x)
    expected.sum().backward()
    references = [expected.detach(), x.grad, *(p.grad for p in model.parameters())]
    model.zero_grad(set_to_none=True)
    on_xpu = x.detach().to(xpu).requires_grad_()
    with XPU.amp.autocast(True, dtype):
        y = model.to(xpu)(on_xpu)
    y.sum().backward()
    assert y.dtype is dtype
    got = [y.detach(), on_xpu.grad, *(p.grad for p in model.parameters())]
    assert [value.dtype for value in got[1:]] == [FLOAT32] * 3
    # Both dtypes round to 2**-8 or finer; two convolutions and a pooling add up to a few roundings.
    assert max(map(relative_error, got, references)) < 2e-2
    assert relative_error(got[0], references[0]) > 1e-5


def test_default_is_bfloat16_also_for_stock_regions(xpu):
    layer, x = torch.nn.Linear(4, 4).to(xpu), torch.randn(2, 4, device=xpu)
    with XPU.amp.autocast():
        assert layer(x).dtype is BFLOAT16
        assert XPU.amp.is_autocast_xpu_enabled()
    with torch.autocast("xpu"):
        assert layer(x).dtype is BFLOAT16
    assert not XPU.amp.is_autocast_xpu_enabled()
    assert layer(x).dtype is FLOAT32


@pytest.mark.parametrize("norm", [torch.nn.LayerNorm(4), torch.nn.GroupNorm(2, 4), torch.nn.RMSNorm(4)])
def test_norms_of_ipex_follow_their_input(xpu, norm):
    """Kernels of PyTorch for GPUs refuse float32 parameters there, or give float32; those of IPEX did neither."""
    xpu_amp_dynamo.install("ipex", "xpu")
    layer, norm, x = torch.nn.Linear(4, 4).to(xpu), norm.to(xpu), torch.randn(2, 4, device=xpu)

    def step(x):
        with torch.autocast("xpu"):
            y = norm(layer(x))
            return y, layer(y)

    compiled = torch.compile(step, backend="xpu_amp", options={"inner_backend": "eager"})
    for run in (step, compiled):
        assert [y.dtype for y in run(x)] == [BFLOAT16, BFLOAT16]


def test_nested_and_disabled_regions(xpu):
    layer, x = torch.nn.Linear(4, 4).to(xpu), torch.randn(2, 4, device=xpu)
    with XPU.amp.autocast():
        with XPU.amp.autocast(False):
            assert layer(x).dtype is FLOAT32
            with XPU.amp.autocast(dtype=FLOAT16):
                assert layer(x).dtype is FLOAT16
                assert XPU.amp.get_autocast_xpu_dtype() is FLOAT16
        assert layer(x).dtype is BFLOAT16
    assert XPU.amp.get_autocast_xpu_dtype() is BFLOAT16


class Decorated(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)


@pytest.mark.parametrize("compiled", [False, True])
def test_decorates_methods(xpu, compiled):
    class Model(Decorated):
        @XPU.amp.autocast(dtype=FLOAT16)
        def forward(self, x):
            return self.layer(x)

    model, x = Model().to(xpu), torch.randn(2, 4, device=xpu)
    run = torch.compile(model, backend="ipex", fullgraph=True) if compiled else model
    assert run(x).dtype is FLOAT16
    assert relative_error(run(x).detach(), model.layer(x).detach().cpu()) < 5e-3


@pytest.mark.parametrize("backend", ["ipex", "xpu_amp", "eager"])
def test_region_inside_compiled_code(xpu, backend):
    layer, x = torch.nn.Linear(4, 4).to(xpu), torch.randn(2, 4, device=xpu)

    @torch.compile(backend=backend, fullgraph=True)
    def run(x):
        with XPU.amp.autocast(enabled=True, dtype=BFLOAT16):
            return layer(x)

    y = run(x)
    assert y.dtype is BFLOAT16
    assert relative_error(y.detach(), layer(x).detach().cpu()) < 2e-2


def test_backend_leaves_float32_programs_alone(xpu):
    """A loss of bits would show: no op runs lower outside of regions, unless it is asked for."""
    layer, x = torch.nn.Linear(64, 64).to(xpu), torch.randn(2, 64, device=xpu)
    reference = layer(x).detach().cpu()
    assert relative_error(torch.compile(layer, backend="ipex")(x).detach(), reference) < 1e-6
    torch._dynamo.reset()
    lowered = torch.compile(layer, backend="ipex", options={"enabled": True})
    assert 1e-5 < relative_error(lowered(x).detach(), reference) < 2e-2


@pytest.mark.parametrize("cast_inputs", [None, FLOAT32])
def test_custom_functions(xpu, cast_inputs):
    """The casts that IPEX's own left out: it looked for CUDA tensors."""
    seen: dict[str, Any] = {}

    class Product(torch.autograd.Function):
        @staticmethod
        @XPU.amp.custom_fwd(cast_inputs=cast_inputs)
        def forward(ctx, a, b):
            ctx.save_for_backward(a, b)
            seen["forward"] = (a.dtype, (a @ b).dtype)
            return a @ b

        @staticmethod
        @XPU.amp.custom_bwd
        def backward(ctx, grad):
            a, b = ctx.saved_tensors
            seen["backward"] = (grad @ b.t()).dtype
            return grad @ b.t(), a.t() @ grad

    a = torch.randn(4, 4, device=xpu, dtype=BFLOAT16, requires_grad=True)
    with XPU.amp.autocast():
        y = Product.apply(a, torch.randn(4, 4, device=xpu, dtype=BFLOAT16))
    y.sum().backward()
    lowered = cast_inputs is None
    assert seen["forward"] == ((BFLOAT16, BFLOAT16) if lowered else (FLOAT32, FLOAT32))
    assert seen["backward"] is (BFLOAT16 if lowered else FLOAT32)


def test_setters(xpu):
    layer, x = torch.nn.Linear(4, 4).to(xpu), torch.randn(2, 4, device=xpu)
    XPU.amp.set_autocast_xpu_dtype(FLOAT16)
    XPU.amp.set_autocast_xpu_enabled(True)
    try:
        assert layer(x).dtype is FLOAT16
        assert installed_name() == "xpu"
    finally:
        XPU.amp.set_autocast_xpu_enabled(False)
    assert layer(x).dtype is FLOAT32
    with pytest.raises(UnsupportedDtypeError, match=r"torch\.float64"):
        XPU.amp.set_autocast_xpu_dtype(torch.float64)


def test_scaler(xpu):
    scaler = XPU.amp.GradScaler(init_scale=8.0)
    weight = torch.nn.Parameter(torch.ones(2, device=xpu))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler.scale(weight.sum()).backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [8.0, 8.0]
    scaler.step(optimizer)
    scaler.update()
    assert weight.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("xpu", r"the order is enabled, dtype, cache_enabled"),
        (BFLOAT16, r"Name the argument \(dtype=torch.bfloat16\)"),
        (1, "a bool, and was 1"),
        (len, r"@torch\.xpu\.amp\.autocast\(\), with the parentheses"),
    ],
)
def test_wrong_first_argument(installed, first, said):
    with pytest.raises(InvalidOptionError, match=said):
        XPU.amp.autocast(first)


def test_wrong_dtype(installed):
    with pytest.raises(UnsupportedDtypeError, match=r"torch\.float64"):
        XPU.amp.autocast(dtype=torch.float64)


@pytest.mark.parametrize("policy", [None, "ipex", "torch"])
def test_the_first_region_installs_the_policy(xpu, policy):
    xpu_amp_dynamo.install_torch_xpu_amp(policy)
    assert xpu_amp_dynamo.installed_policy("xpu") is None
    with XPU.amp.autocast():
        pass
    assert installed_name() == (policy or "xpu")


def test_the_policy_that_is_installed_stays(xpu):
    xpu_amp_dynamo.install("ipex", "xpu")
    with XPU.amp.autocast():
        pass
    assert installed_name() == "ipex"


def test_uninstalling_takes_everything_back():
    before, dtype = set(dir(torch.xpu)), torch.get_autocast_dtype("xpu")
    xpu_amp_dynamo.uninstall_torch_xpu_amp()
    for _ in range(2):
        xpu_amp_dynamo.install_torch_xpu_amp()
        xpu_amp_dynamo.install_torch_xpu_amp("ipex")
        assert importlib.import_module("torch.xpu.amp").autocast is XPU.amp.autocast
        xpu_amp_dynamo.uninstall_torch_xpu_amp()
        assert set(dir(torch.xpu)) == before
        assert torch.get_autocast_dtype("xpu") is dtype
        assert "torch.xpu.amp" not in sys.modules
        assert "ipex" not in torch._dynamo.list_backends(())


def test_refusals_change_nothing(monkeypatch):
    with pytest.raises(UnknownPolicyError):
        xpu_amp_dynamo.install_torch_xpu_amp("nothing")
    assert not hasattr(torch.xpu, "amp")
    monkeypatch.setattr(torch.xpu, "optimize", len, raising=False)
    with pytest.raises(ForeignExtensionError, match=r"torch\.xpu\.optimize is there already"):
        xpu_amp_dynamo.install_torch_xpu_amp()
    assert not hasattr(torch.xpu, "amp")


def test_other_threads(xpu):
    layer, x = torch.nn.Linear(4, 4).to(xpu), torch.randn(2, 4, device=xpu)
    found = []

    def run():
        with XPU.amp.autocast():
            found.append(layer(x).dtype)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [BFLOAT16]
