"""The weight cache: one cast per region, never stale, gone with the region."""

from __future__ import annotations

import contextlib
import functools
import gc
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xpu_amp_dynamo import autocast
from xpu_amp_dynamo.runtime import autocast_cache_lifetime
from xpu_amp_dynamo.runtime.autocast_cache_lifetime import _sentinel
from xpu_amp_dynamo.runtime.kernels import CAST_CACHE


@pytest.fixture
def linear(device):
    return torch.nn.Linear(4, 4, bias=False).to(device)


def cast_node(result):
    """Return the autograd node of the weight's cast behind a product."""
    nodes = [result.grad_fn]
    while nodes:
        node = nodes.pop()
        if node.name() in ("ToCopyBackward0", "_CastBackward") and "AccumulateGrad" in node.next_functions[0][0].name():
            return node
        nodes.extend(following for following, _ in node.next_functions if following is not None)
    raise AssertionError("no cast of a leaf")


def test_weights_are_cast_once_per_region(device, linear):
    x = torch.randn(2, 4, device=device)
    with autocast(device):
        assert cast_node(linear(x)) is cast_node(linear(x))
        with autocast(device, enabled=False), autocast(device):
            first = cast_node(linear(x))
        assert first is cast_node(linear(x))
    with autocast(device):
        assert first is not cast_node(linear(x))


@pytest.mark.parametrize("default", [{"dtype": torch.float64}, {"dtype": torch.bfloat16}, {"device": "meta"}], ids=str)
def test_the_defaults_at_the_first_region_do_not_matter(device, linear, default, monkeypatch):
    """Another default dtype or device would make the sentinel one that PyTorch does not cache."""
    monkeypatch.setattr(autocast_cache_lifetime, "_sentinel", functools.cache(_sentinel.__wrapped__))
    x, other = torch.randn(2, 4, device=device), torch.nn.Linear(4, 4, device=device)
    monkeypatch.setattr(CAST_CACHE, "_lifetime", None)
    with autocast(device):
        with default_of(**default):
            first = cast_node(linear(x))
        other(x)
        assert cast_node(linear(x)) is first
    assert len(CAST_CACHE) == 0


@contextlib.contextmanager
def default_of(dtype=torch.float32, device="cpu"):
    """Set the default dtype and device inside."""
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_cache_can_be_turned_off(device, linear):
    x = torch.randn(2, 4, device=device)
    with autocast(device, cache_enabled=False):
        assert cast_node(linear(x)) is not cast_node(linear(x))
        assert len(CAST_CACHE) == 0


def test_dtypes_do_not_mix(device, linear):
    x = torch.randn(2, 4, device=device)
    with autocast(device):
        low = linear(x)
        with autocast(device, torch.float16):
            assert linear(x).dtype is torch.float16
        assert torch.equal(linear(x), low)


def test_in_place_updates_are_seen(device, linear):
    x = torch.randn(2, 4, device=device)
    with autocast(device):
        linear(x)
        with torch.no_grad():
            linear.weight.zero_()
        assert linear(x).abs().max() == 0


def test_optimizer_steps_are_seen(device, linear):
    x = torch.ones(2, 4, device=device)
    optimizer = torch.optim.SGD(linear.parameters(), lr=1.0)
    with autocast(device):
        before = linear(x)
        before.float().sum().backward()
        optimizer.step()
        assert not torch.equal(linear(x), before)
        assert torch.equal(linear(x), x.bfloat16() @ linear.weight.detach().bfloat16().T)


def test_repointed_storage_is_seen(device, linear):
    x = torch.ones(2, 4, device=device)
    with autocast(device):
        linear(x)
        linear.weight.data = torch.zeros(4, 4, device=device)
        assert linear(x).abs().max() == 0


def test_no_grad_does_not_lose_gradients(device, linear):
    x = torch.randn(2, 4, device=device)
    with autocast(device):
        with torch.no_grad():
            linear(x)
        linear(x).float().sum().backward()
    assert linear.weight.grad is not None


def test_inference_mode(device, linear):
    x = torch.randn(2, 4, device=device)
    with autocast(device):
        with torch.inference_mode():
            inferred = linear(x)
        loss = linear(x).float().sum()
    loss.backward()
    assert inferred.dtype is torch.bfloat16
    assert linear.weight.grad is not None


def test_weights_made_in_inference_mode(device):
    x = torch.randn(2, 4, device=device)
    with torch.inference_mode(), autocast(device):
        layer = torch.nn.Linear(4, 4).to(device)
        assert layer(x).dtype is torch.bfloat16


@pytest.mark.parametrize("leave", ["stock region", "our region", "clear_autocast_cache"])
def test_the_cache_ends_with_the_outermost_region(device, linear, leave):
    x = torch.randn(2, 4, device=device)
    with autocast(device):
        pass  # installs the policy
    region = torch.autocast(device, torch.bfloat16) if leave == "stock region" else autocast(device)
    with region:
        with autocast(device):
            linear(x)
        assert len(CAST_CACHE) == 1
        if leave == "clear_autocast_cache":
            torch.clear_autocast_cache()
            assert len(CAST_CACHE) == 0
    assert len(CAST_CACHE) == 0


def test_exception_ends_the_cache(device, linear):
    def fail():
        with autocast(device):
            linear(torch.randn(2, 4, device=device))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(CAST_CACHE) == 0


def test_weights_are_freed_with_the_region(device):
    layer = torch.nn.Linear(4, 4).to(device)
    alive = weakref.ref(layer.weight)
    with autocast(device):
        layer(torch.randn(2, 4, device=device))
    del layer
    gc.collect()
    assert alive() is None


def test_saved_tensor_hooks_see_only_the_user_s_tensors(device, linear):
    saved: list[torch.Tensor] = []
    with autocast(device), torch.autograd.graph.saved_tensors_hooks(saved.append, lambda packed: packed):
        linear(torch.randn(2, 4, device=device, requires_grad=True))
    assert {tuple(tensor.shape) for tensor in saved} == {(2, 4), (4, 4)}


def test_gradients_add_up_over_uses(device, linear):
    x = torch.randn(2, 4, device=device)
    with autocast(device):
        (linear(x) + linear(x)).float().sum().backward()
    twice = linear.weight.grad.clone()
    linear.zero_grad()
    with autocast(device):
        linear(x).float().sum().backward()
    torch.testing.assert_close(twice, 2 * linear.weight.grad, rtol=1e-2, atol=0)


def test_nothing_is_cached_under_a_dispatch_mode(device, linear):
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    with autocast(device), Mode():
        linear(torch.randn(2, 4, device=device))
        assert len(CAST_CACHE) == 0
