"""Keeps autocast away from lowered code: while it is compiled, in its forward and in its backward."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from xpu_amp_dynamo.compat.autocast import autocast_device_types, disabling_autocast

# A device type that owns no tensors in the builds of PyTorch that this package serves, and whose autocast counts for
# `torch._C._is_any_autocast_enabled`, unlike that of "maia" and "mps" (torch 2.13.0).
_UNUSED_DEVICE_TYPE = "ipu"


@contextlib.contextmanager
def compiling_without_autocast() -> Iterator[None]:
    """Turn autocast off while a lowered graph is compiled, so that AOTAutograd turns it off when it runs, too.

    AOTAutograd runs compiled code with autocast off only if autocast was on for any device type while it compiled
    (``disable_amp``, torch 2.13.0). With all of them off, a backward that is called inside a region would cast again.
    So one stays on, for a device type that owns nothing.
    """
    device_types = [d for d in autocast_device_types() if torch.is_autocast_enabled(d)]
    for device_type in device_types:
        torch.set_autocast_enabled(device_type, False)
    torch.set_autocast_enabled(_UNUSED_DEVICE_TYPE, True)
    try:
        yield
    finally:
        torch.set_autocast_enabled(_UNUSED_DEVICE_TYPE, _UNUSED_DEVICE_TYPE in device_types)
        for device_type in device_types:
            torch.set_autocast_enabled(device_type, True)


def without_autocast(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Return the compiled function with autocast off while it runs, so that nothing is cast twice."""

    @functools.wraps(compiled, assigned=("__name__", "__doc__"))
    def run(*args: Any) -> Any:
        with disabling_autocast():
            return compiled(*args)

    return run
