"""What happens to kept casts when memory runs out: they go, and the call goes on."""

from __future__ import annotations

import functools
import warnings

import torch

from xpu_amp_dynamo.runtime.weight_store import WeightStore

# Accelerators raise an error of its own; the CPU's allocator says so, torch 2.13.0.
_CPU_ALLOCATOR = "DefaultCPUAllocator"


def make_room(store: WeightStore, error: RuntimeError) -> None:
    """Free all kept casts if memory ran out while one was made, and warn once.

    Args:
        store: holds the casts.
        error: what the cast raised.

    Raises:
        RuntimeError: ``error``, if it is another one.
    """
    if not isinstance(error, torch.OutOfMemoryError) and _CPU_ALLOCATOR not in str(error):
        raise error
    store.release()
    _warn()


@functools.cache
def _warn() -> None:
    warnings.warn(
        "There was no memory to keep casted weights, so all were freed, and this call casts them as it goes; "
        "options={'weights': 'recast'} and autocast(cache_enabled=False) keep none",
        stacklevel=2,
    )
