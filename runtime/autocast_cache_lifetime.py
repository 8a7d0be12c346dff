"""Tells when PyTorch drops its autocast weight cache, which is when the outermost region of a thread ends.

PyTorch offers no hook for that moment, and its cache is the only object whose life ends there. So a token is
tied to an entry of that cache: an empty sentinel weight is cast through a stock autocast kernel, which
puts the casted copy into the cache, and the token becomes a hook of that copy's autograd node. Clearing the
cache frees copy, node and token in turn, whoever clears it: the exit of a region or a user's
``torch.clear_autocast_cache()``.

The kernel is that of ``_addmm_activation`` on the CPU: it saves no tensors, so that a user's saved tensor hooks see
nothing of it, and only PyTorch itself calls it, outside regions, so that every policy can leave it as it is. It must be
called through the dispatcher, which releases Python's lock: another thread may be clearing the cache, and it holds
the cache's mutex while it waits for Python's lock to free the token. Checked on torch 2.13.0.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable

import torch

from xpu_amp_dynamo.compat.dispatcher import dispatch_key, keys_of, redispatch_of


class _Token:
    """A gradient hook that does nothing; its life is what matters."""

    def __call__(self, *gradients: object) -> None:
        return None


# The op whose stock kernel must stay registered, and for which device type.
STOCK_OP = torch.ops.aten._addmm_activation.default
STOCK_DEVICE_TYPE = "cpu"


@functools.cache
def _sentinel() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight whose casted copy stands for the cache, and a factor. The CPU's serve every device type.

    PyTorch caches casts of float32 weights only, whatever the default dtype and device are here and now.
    """
    weight, factor = (torch.zeros(0, 0, dtype=torch.float32, device=STOCK_DEVICE_TYPE) for _ in range(2))
    return weight.requires_grad_(), factor


def token_of_autocast_cache(on_clear: Callable[[object], None]) -> weakref.ref[object]:
    """Return a weak reference that dies when PyTorch next clears its autocast cache.

    Args:
        on_clear: called with the dead reference at that moment.

    Call it inside a region whose cache is enabled and outside tracing and dispatch modes.
    """
    with torch.inference_mode(False), torch.enable_grad():
        sentinel, factor = _sentinel()
        keys = keys_of(sentinel).add(dispatch_key("AutocastCPU"))
        result = redispatch_of(STOCK_OP)(keys, sentinel, factor, factor)
    assert result.grad_fn is not None
    cast_node = result.grad_fn.next_functions[0][0]
    assert cast_node is not None
    token = _Token()
    cast_node.register_hook(token)
    return weakref.ref(token, on_clear)
