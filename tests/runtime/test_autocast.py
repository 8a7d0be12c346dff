"""The eager region: what it casts, how it nests, and what it refuses."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import xpu_amp_dynamo
from xpu_amp_dynamo import Policy, autocast
from xpu_amp_dynamo.errors import InvalidOptionError, PolicyConflictError, UnsupportedDeviceError, UnsupportedDtypeError

BFLOAT16, FLOAT16, FLOAT32, FLOAT64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


def test_documented_ops_run_in_their_dtypes(device):
    x = torch.randn(4, 4, device=device)
    with autocast(device):
        assert (x @ x).dtype is BFLOAT16
        assert F.log_softmax(x @ x, -1).dtype is FLOAT32
        assert torch.softmax(x @ x, -1).dtype is BFLOAT16
        assert torch.cat([x @ x, x]).dtype is FLOAT32
        assert torch.cat([x @ x, x @ x]).dtype is BFLOAT16
        assert (x @ x + x).dtype is FLOAT32
    assert (x @ x).dtype is FLOAT32


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
def test_dtype_of_the_region(device, dtype):
    x = torch.randn(4, 4, device=device)
    with autocast(device, dtype):
        assert (x @ x).dtype is dtype
    with autocast(device, dtype=dtype):
        assert torch.equal(x @ x, x.to(dtype) @ x.to(dtype))


def test_ineligible_calls_run_as_without_autocast(device):
    x, out = torch.randn(4, 4, device=device), torch.empty(4, 4, device=device)
    expected = torch.addmm(x, x, x)
    with autocast(device):
        assert (x.double() @ x.double()).dtype is FLOAT64
        if device != "cuda":  # which multiplies no matrices of integers
            assert (x.long() @ x.long()).dtype is torch.int64
        assert torch.equal(torch.addmm(x, x, x, out=out), expected)
        assert torch.equal(x.clone().addmm_(x, x), expected)


def test_float64_is_decided_tensor_by_tensor(device):
    low, probabilities = torch.randn(4, 4, device=device).bfloat16(), torch.rand(4, 4, device=device).double()
    with autocast(device):
        mixed = F.cross_entropy(low, probabilities)
    assert torch.equal(mixed, F.cross_entropy(low.float(), probabilities))


def test_tensors_of_other_devices_stay(device):
    x = torch.randn(4, 4, device="meta")
    with autocast(device):
        assert (x @ x).dtype is FLOAT32


def test_nesting_and_enabled_false(device):
    x = torch.randn(4, 4, device=device)
    with autocast(device):
        with autocast(device, enabled=False):
            assert (x @ x).dtype is FLOAT32
            with autocast(device, FLOAT16):
                assert (x @ x).dtype is FLOAT16
        assert (x @ x).dtype is BFLOAT16


def test_stock_autocast_inside_and_around_follows_the_policy(device):
    x = torch.randn(4, 4, device=device)
    with autocast(device):
        with torch.autocast(device, enabled=False):
            assert (x @ x).dtype is FLOAT32
        with torch.autocast(device, FLOAT16):
            assert torch.exp(x @ x).dtype is FLOAT16
    with torch.autocast(device, FLOAT16):
        assert torch.cat([x @ x, x]).dtype is FLOAT32
        with autocast(device):
            assert (x @ x).dtype is BFLOAT16
        assert (x @ x).dtype is FLOAT16


def test_decorator(device):
    @autocast(device, FLOAT16)
    def product(x):
        return x @ x

    assert product(torch.randn(4, 4, device=device)).dtype is FLOAT16


def test_exception_leaves_the_state_clean(device):
    with pytest.raises(KeyError), autocast(device):
        raise KeyError
    assert not torch.is_autocast_enabled(device)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), autocast(device):
        torch.mm(torch.zeros(2, 3, device=device), torch.zeros(2, 3, device=device))
    x = torch.randn(4, 4, device=device)
    assert (x @ x).dtype is FLOAT32


def test_dtypes_and_devices_have_several_names(device):
    x = torch.randn(4, 4, device=device)
    for named in (torch.device(device), f"{device}:0"):
        with autocast(named, "fp16"):
            assert (x @ x).dtype is FLOAT16
        with autocast(named, FLOAT32, enabled=False):
            assert (x @ x).dtype is FLOAT32
    with pytest.raises(UnsupportedDtypeError, match="'fp8'"):
        autocast(device, "fp8", enabled=False)

    @torch.compile(backend="eager", fullgraph=True)
    def compiled(x):
        with autocast(f"{device}:0", "bf16"):
            return x @ x

    assert compiled(x).dtype is BFLOAT16


def test_default_dtype_is_bfloat16_and_default_device_exists():
    x = torch.randn(4, 4, device=xpu_amp_dynamo.default_device_type())
    with autocast():
        assert (x @ x).dtype is BFLOAT16


def test_composites_are_cast_inside(device):
    x = torch.randn(4, 4, device=device)
    with autocast(device):
        assert torch.einsum("ij,jk->ik", x, x).dtype is BFLOAT16
        for cell in (torch.nn.LSTMCell, torch.nn.GRUCell):
            out, *_ = cell(4, 4).to(device)(x)
            assert out.dtype is FLOAT32
            out.sum().backward()


def test_encoder_fast_path_runs(device):
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).to(device).eval()
    x = torch.randn(2, 3, 16, device=device)
    with torch.no_grad(), autocast(device):
        assert (layer(x).float() - layer(x.clone()).float()).abs().max() == 0
        low = layer(x).float()
    torch.testing.assert_close(low, layer(x).detach(), rtol=0.05, atol=0.05)


def test_mixtures_that_a_region_makes_do_not_raise(device):
    x, w = torch.randn(2, 4, 4, device=device), torch.randn(2, 4, 4, device=device)
    with autocast(device):
        low = x @ w
        assert F.scaled_dot_product_attention(x, low, low).dtype is BFLOAT16
        assert torch.index_copy(x, 0, torch.tensor([0], device=device), low[:1]).dtype is FLOAT32
        assert F.layer_norm(low, (4,), x[0, 0]).dtype is BFLOAT16


@pytest.mark.parametrize("loss", [F.mse_loss, F.huber_loss, F.l1_loss, F.smooth_l1_loss, F.kl_div])
def test_losses_of_lower_precision_against_float32_targets_have_a_backward(loss, device):
    x, target = torch.randn(4, 4, device=device, requires_grad=True), torch.randn(4, 4, device=device)
    with autocast(device):
        value = loss(x @ x, target, reduction="sum")
    assert value.dtype is FLOAT32
    value.backward()
    assert x.grad is not None
    assert x.grad.dtype is FLOAT32


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoint_recomputes_in_the_same_dtypes(device, use_reentrant):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 8)).to(device)
    x = torch.randn(4, 8, device=device, requires_grad=True)
    with autocast(device):
        plain = model(x).float().sum()
        checkpointed = checkpoint(model, x, use_reentrant=use_reentrant).float().sum()
    (expected,) = torch.autograd.grad(plain, x)
    (actual,) = torch.autograd.grad(checkpointed, x) if not use_reentrant else (_backward(checkpointed, x),)
    assert torch.equal(expected, actual)


def _backward(loss, x):
    loss.backward()
    return x.grad


def test_custom_fwd_and_bwd(device):
    class Double(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type=device, cast_inputs=FLOAT32)
        def forward(ctx, x):
            ctx.inside = (x.dtype, (x @ x).dtype)
            seen.append(ctx.inside)
            return x * 2

        @staticmethod
        @torch.amp.custom_bwd(device_type=device)
        def backward(ctx, gradient):
            return gradient * 2

    seen: list[tuple[torch.dtype, torch.dtype]] = []
    x = torch.randn(4, 4, device=device, requires_grad=True)
    with autocast(device):
        Double.apply(x @ x).sum().backward()
    assert seen == [(FLOAT32, FLOAT32)]
    assert x.grad is not None


def test_threads_have_their_own_regions(device):
    x = torch.randn(4, 4, device=device)
    dtypes: dict[int, set[torch.dtype]] = {}

    def work(index, dtype):
        for _ in range(50):
            with autocast(device, dtype, enabled=index % 4 != 3):
                dtypes.setdefault(index, set()).add((x @ x).dtype)

    threads = [threading.Thread(target=work, args=(i, (BFLOAT16, FLOAT16)[i % 2])) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = [{BFLOAT16}, {FLOAT16}, {BFLOAT16}, {FLOAT32}] * 2
    assert [dtypes[i] for i in range(8)] == wanted


def test_trace_and_freeze(device):
    model = torch.nn.Conv2d(3, 4, 3).to(device).eval()
    x = torch.randn(1, 3, 8, 8, device=device)
    with autocast(device):
        traced = torch.jit.freeze(torch.jit.trace(model, x))
        assert torch.equal(traced(x), model(x))
    assert traced(x).dtype is BFLOAT16


def test_vmap_and_grad(device):
    w = torch.randn(4, 4, device=device)
    with autocast(device):
        out = torch.func.vmap(lambda row: row @ w)(torch.randn(3, 4, device=device))
        gradient = torch.func.grad(lambda v: (v @ v).float().sum())(w)
    assert out.dtype is BFLOAT16
    assert gradient.dtype is FLOAT32


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64, torch.float8_e4m3fn, torch.int8, None])
def test_unsupported_dtype(device, dtype):
    with pytest.raises(UnsupportedDtypeError, match=r"use torch.bfloat16 or torch.float16"):
        autocast(device, dtype)
    assert xpu_amp_dynamo.installed_policy(device) is None


@pytest.mark.parametrize("name", ["enabled", "cache_enabled"])
def test_what_is_no_bool_is_refused_before_anything_is_changed(device, name):
    words: Any = {name: 1}
    with pytest.raises(InvalidOptionError, match=f"{name} of autocast is 1; it must be True or False"):
        autocast(device, **words)
    assert not torch.is_autocast_enabled(device)
    assert xpu_amp_dynamo.installed_policy(device) is None


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (False, r"IPEX took enabled, dtype, cache_enabled\. Name it, as in autocast\(enabled=False\)"),
        (torch.bfloat16, r"as in autocast\(dtype=torch\.bfloat16\)"),
        (len, r"@autocast\(\), with the parentheses"),
        (torch.nn.Linear(1, 1), r"@autocast\(\), with the parentheses"),
    ],
)
def test_the_order_of_ipex_is_explained(first, said):
    with pytest.raises(UnsupportedDeviceError, match=said):
        autocast(first)


@pytest.mark.parametrize("device_type", ["meta", "gpu", "xpu:", "xpu:first", 0])
def test_unsupported_device(device_type):
    with pytest.raises(UnsupportedDeviceError, match=r"use one of \['cpu', 'cuda', 'xpu'\]"):
        autocast(device_type)


def test_another_policy_than_the_installed_one_is_refused(device):
    with autocast(device):
        pass
    with pytest.raises(PolicyConflictError, match=r"'ipex' was asked for, but 'xpu' is installed"):
        autocast(device, policy=Policy.named("ipex"))
    with autocast(device, policy=Policy.named("xpu")):
        pass
