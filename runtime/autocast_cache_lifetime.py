"""Tells when PyTorch drops its autocast weight cache, which is when the outermost region of a thread ends.

PyTorch offers no hook for that moment, and its cache is the only object whose life ends there. So a token is
tied to an entry of that cache: a one-element sentinel weight is cast through a stock autocast kernel, which
puts the casted copy into the cache, and the token becomes a hook of that copy's autograd node. Clearing the
cache frees copy, node and token in turn, whoever clears it: the exit of a region or a user's
``torch.clear_autocast_cache()``. Checked on torch 2.13.0.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable

import torch


class _Token:
    """A gradient hook that does nothing; its life is what matters."""

    def __call__(self, *gradients: object) -> None:
        return None


@functools.cache
def stock_cpu_matmul() -> torch._C._SafeKernelFunction:
    """Return stock PyTorch's autocast kernel of ``mm``; the first call must come before it is overridden."""
    return torch.library.get_kernel("aten::mm", "AutocastCPU")


@functools.cache
def _sentinel() -> torch.Tensor:
    """Return the weight whose casted copy stands for the cache. The CPU's serves every device type."""
    return torch.zeros(1, 1, requires_grad=True)


def token_of_autocast_cache(on_clear: Callable[[object], None]) -> weakref.ref[object]:
    """Return a weak reference that dies when PyTorch next clears its autocast cache.

    Args:
        on_clear: called with the dead reference at that moment.

    Call it inside a region whose cache is enabled and outside tracing and dispatch modes.
    """
    with torch.inference_mode(False), torch.enable_grad():
        sentinel = _sentinel()
        keys = torch._C._dispatch_keys(sentinel).add(torch._C.DispatchKey.AutocastCPU)
        product = stock_cpu_matmul().call_boxed(keys, sentinel, sentinel)
    assert product.grad_fn is not None
    cast_node = product.grad_fn.next_functions[0][0]
    assert cast_node is not None
    token = _Token()
    cast_node.register_hook(token)
    return weakref.ref(token, on_clear)
