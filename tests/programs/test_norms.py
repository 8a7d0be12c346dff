"""Norms keep the dtype of their input: eager and compiled, with their parameters in float32 or not."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import xpu_amp_dynamo
from tests.support.captured_graphs import casts_in, lowered_graphs
from tests.support.samples import outcome_of, same
from xpu_amp_dynamo import Policy
from xpu_amp_dynamo.runtime.kernels import CAST_CACHE

BFLOAT16, FLOAT16, FLOAT32, FLOAT64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
LOWER = (BFLOAT16, FLOAT16)
FLOATING = (*LOWER, FLOAT32)
ATEN = torch.ops.aten

MODULES: dict[str, Any] = {
    "LayerNorm": lambda: nn.LayerNorm(8),
    "LayerNorm without bias": lambda: nn.LayerNorm(8, bias=False),
    "LayerNorm without parameters": lambda: nn.LayerNorm(8, elementwise_affine=False),
    "GroupNorm": lambda: nn.GroupNorm(2, 6),
    "GroupNorm without parameters": lambda: nn.GroupNorm(2, 6, affine=False),
    "RMSNorm": lambda: nn.RMSNorm(8),
    "RMSNorm without parameters": lambda: nn.RMSNorm(8, elementwise_affine=False),
    "InstanceNorm1d": lambda: nn.InstanceNorm1d(6, affine=True, track_running_stats=True),
    "InstanceNorm1d without parameters": lambda: nn.InstanceNorm1d(6),
    "BatchNorm1d": lambda: nn.BatchNorm1d(6),
    "LocalResponseNorm": lambda: nn.LocalResponseNorm(2),
}
# Of an input and two parameters, None where one is left out.
FUNCTIONS: dict[str, Any] = {
    "layer_norm": lambda x, w, b: F.layer_norm(x, (6,), w, b),
    "layer_norm by name": lambda x, w, b: F.layer_norm(bias=b, weight=w, normalized_shape=(6,), input=x),
    "native_layer_norm": lambda x, w, b: ATEN.native_layer_norm(x, (6,), w, b, 1e-5)[0],
    "group_norm": lambda x, w, b: F.group_norm(x, 3, w, b),
    "native_group_norm": lambda x, w, b: ATEN.native_group_norm(x, w, b, 2, 6, 6, 3, 1e-5)[0],
    "rms_norm": lambda x, w, b: F.rms_norm(x, (6,), w),
    "_fused_rms_norm": lambda x, w, b: ATEN._fused_rms_norm(x, (6,), w, 1e-5)[0],
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight"),
    pytest.mark.filterwarnings("ignore:float16 training needs loss scaling"),
]


def module_of(kind: str, device: str) -> nn.Module:
    module = MODULES[kind]().to(device)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def results_of(module: nn.Module, x: torch.Tensor, region_dtype: torch.dtype | None, **options: Any) -> list[Any]:
    """Return a module's output and gradients, eagerly or, given options, compiled inside a region."""
    module, x = copy.deepcopy(module), x.clone().requires_grad_()
    run = torch.compile(module, backend="xpu_amp", options=options) if options else module
    with torch.autocast(x.device.type, region_dtype or BFLOAT16, enabled=region_dtype is not None):
        y = run(x)
    y.backward(torch.linspace(-1, 2, y.numel(), device=x.device).view_as(y).to(y.dtype))
    return [y.detach(), x.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("lower", LOWER, ids=str)
@pytest.mark.parametrize("kind", MODULES)
def test_modules_give_the_dtype_of_their_input(kind, lower, device):
    """Parameters' gradients are float32, values near those of float64; the lowered graph gives the same bits."""
    xpu_amp_dynamo.install(device_type=device)
    module, wide = module_of(kind, device), torch.randn(4, 6, 8, device=device)
    for dtype in (lower, FLOAT32):
        x = wide.to(dtype)
        eager = results_of(module, x, lower)
        assert [t.dtype for t in eager] == [dtype, dtype, *(p.dtype for p in module.parameters())]
        reference = results_of(copy.deepcopy(module).double(), x.double(), None)
        tolerance = 1e-4 if dtype is FLOAT32 else 8 * torch.finfo(lower).eps
        for got, want in zip(eager, reference, strict=True):
            assert (got.double() - want).norm() <= tolerance * want.norm()
        assert same(results_of(module, x, lower, inner_backend="eager"), eager)
        torch._dynamo.reset()


@pytest.mark.parametrize("kind", ["LayerNorm", "GroupNorm", "RMSNorm"])
def test_inductor_gives_the_dtypes_of_eager_code(kind, device):
    if device == "xpu":
        pytest.skip("the simulated XPU runs no kernels of Inductor here")
    xpu_amp_dynamo.install(device_type=device)
    module, x = module_of(kind, device), torch.randn(4, 6, 8, device=device).bfloat16()
    eager, compiled = results_of(module, x, BFLOAT16), results_of(module, x, BFLOAT16, inner_backend="inductor")
    assert [t.dtype for t in compiled] == [t.dtype for t in eager]
    for got, want in zip(compiled, eager, strict=True):
        assert (got.float() - want.float()).norm() <= 0.02 * want.float().norm()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_mixture_of_input_and_parameters(function, device):
    """Nothing raises, forward or backward; the results are those of what the op would do with exact parameters."""
    xpu_amp_dynamo.install(device_type=device)
    x, w, b = (torch.randn(s, device=device) for s in ((2, 6, 6), (6,), (6,)))
    given = [(i, j, k) for i in FLOATING for j in (*FLOATING, None) for k in (*FLOATING, None)]
    for dtypes in given:
        if "group" in function and dtypes[1] is None and dtypes[2] is not None:
            continue  # PyTorch's backward refuses a bias alone, in float32 too (torch 2.13.0)
        tensors = [
            None if d is None else t.to(d).detach().requires_grad_() for t, d in zip((x, w, b), dtypes, strict=True)
        ]
        with torch.autocast(device, BFLOAT16):
            y = FUNCTIONS[function](*tensors)
        assert y.dtype is dtypes[0], dtypes
        y.float().square().sum().backward()
        for tensor in tensors[: 2 if "rms" in function else 3]:
            assert tensor is None or (tensor.grad is not None and tensor.grad.dtype is tensor.dtype)
        wide = FUNCTIONS[function](*(None if t is None else t.detach().double() for t in tensors))
        torch.testing.assert_close(y.double(), wide, rtol=0.03, atol=0.06)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_lowered_mixtures_equal_eager_code(function, device):
    xpu_amp_dynamo.install(device_type=device)
    x, w, b = (torch.randn(s, device=device) for s in ((2, 6, 6), (6,), (6,)))

    def program(x, w, b):
        with torch.autocast(device, BFLOAT16):
            return FUNCTIONS[function](x, w, b)

    mixtures = ((BFLOAT16, FLOAT32, FLOAT32), (FLOAT32, BFLOAT16, BFLOAT16), (BFLOAT16, FLOAT32, BFLOAT16))
    for dtypes in mixtures:
        tensors = [t.to(d) for t, d in zip((x, w, b), dtypes, strict=True)]
        torch._dynamo.reset()
        compiled = torch.compile(program, backend="xpu_amp", options={"inner_backend": "eager"})
        assert same(compiled(*tensors), program(*tensors)), dtypes


@pytest.mark.parametrize("function", FUNCTIONS)
def test_wider_and_integer_inputs_run_as_without_a_region(function, device):
    xpu_amp_dynamo.install(device_type=device)
    x, w, b = (torch.randn(s, device=device, dtype=FLOAT64) for s in ((2, 6, 6), (6,), (6,)))
    for inputs in ((x, w, b), (x.bfloat16(), w, b), (x.long(), w.float(), b.float())):
        expected = outcome_of(partial(FUNCTIONS[function], *inputs))
        with torch.autocast(device, BFLOAT16):
            actual = outcome_of(partial(FUNCTIONS[function], *inputs))
        assert same(actual, expected)


@pytest.mark.parametrize("category", ["float32", "promote", "leave"])
def test_a_policy_that_says_otherwise_wins(category):
    policy = Policy.named("xpu").with_ops(**{category: [F.layer_norm]})
    xpu_amp_dynamo.install(policy, "cpu")
    norm, x = nn.LayerNorm(8), torch.randn(2, 8).bfloat16()
    wanted = BFLOAT16 if category == "leave" else FLOAT32
    with torch.autocast("cpu", BFLOAT16):
        assert norm(x).dtype is wanted
    assert results_of(norm, x, BFLOAT16, inner_backend="eager", policy=policy)[0].dtype is wanted


def test_other_ops_can_follow_their_first_input(device):
    """No kernel of these is known to give the dtype of the first input, so that all inputs are cast to it."""
    xpu_amp_dynamo.install(Policy.named("xpu").with_ops(follow=[torch.add, torch.sub]), device)
    x, y = torch.randn(3, device=device), torch.randn(3, device=device).bfloat16()
    with torch.autocast(device, BFLOAT16):
        assert torch.equal(y + x, y + x.bfloat16())
        assert (y + x).dtype is BFLOAT16
        assert (x - y).dtype is FLOAT32
        assert (x.double() + y).dtype is FLOAT64
        assert x.clone().sub_(y).dtype is FLOAT32


def test_float32_parameters_stay_where_the_kernel_reads_them():
    norm, linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def program(x):
        with torch.autocast("cpu", BFLOAT16):
            return linear(norm(linear(x)))

    (gm,) = lowered_graphs(program, torch.randn(2, 8))
    assert casts_in(gm).count(FLOAT32) == 0


def test_without_a_region_norms_read_and_give_captured_dtypes():
    norm, linear, x = nn.LayerNorm(8), nn.Linear(8, 8), torch.randn(2, 8)
    compiled = torch.compile(lambda x: norm(linear(x)), backend="xpu_amp", options={"inner_backend": "eager"})
    low = F.linear(x.bfloat16(), linear.weight.bfloat16(), linear.bias.bfloat16())
    assert torch.equal(compiled(x), norm(low.float()))


def test_traces_checkpoints_and_grad_modes_agree(device):
    xpu_amp_dynamo.install(device_type=device)
    norm = nn.LayerNorm(8)
    net = nn.Sequential(nn.Linear(8, 8), norm, nn.Linear(8, 8)).to(device)
    x = torch.randn(4, 8, device=device, requires_grad=True)
    with torch.autocast(device, BFLOAT16, cache_enabled=False), torch.no_grad():
        expected, traced = net(x), torch.jit.trace(net, x, check_trace=False)(x)
    with torch.autocast(device, BFLOAT16):
        again = checkpoint(net, x, use_reentrant=False)
        assert torch.equal(again, expected)
        assert torch.equal(net(x), expected)
        with torch.inference_mode():
            assert torch.equal(net(x), expected)
    again.float().sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.dtype is FLOAT32
    assert torch.equal(traced, expected)


def test_parameters_are_cast_once_in_a_region(device):
    xpu_amp_dynamo.install(device_type=device)
    norm, x = nn.LayerNorm(8, device=device), torch.randn(2, 8, device=device).bfloat16()
    with torch.autocast(device, BFLOAT16):
        for _ in range(3):
            norm(x)
        assert len(CAST_CACHE) == (0 if device == "cpu" else 2)
