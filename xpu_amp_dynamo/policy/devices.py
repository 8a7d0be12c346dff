"""Device types: which have autocast, which one is meant when none is named, and their dispatch keys."""

from __future__ import annotations

import torch

from xpu_amp_dynamo.compat.dispatcher import DispatchKey, dispatch_key
from xpu_amp_dynamo.errors import UnsupportedDeviceError, UnsupportedDtypeError
from xpu_amp_dynamo.policy.cast_rule import LOWER_DTYPES

AUTOCAST_KEYS = {"xpu": "AutocastXPU", "cuda": "AutocastCUDA", "cpu": "AutocastCPU"}


def default_device_type() -> str:
    """Return ``"xpu"`` if there is one, else the current accelerator's type if it has autocast, else ``"cpu"``."""
    if torch.xpu.is_available():
        return "xpu"
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator is not None and accelerator.type in AUTOCAST_KEYS else "cpu"


def check_device_type(device_type: str) -> str:
    """Return a device type that has autocast.

    Raises:
        UnsupportedDeviceError: it has none.
    """
    if not isinstance(device_type, str) or device_type not in AUTOCAST_KEYS:
        raise UnsupportedDeviceError(
            f"device type {device_type!r} has no autocast here; use one of {sorted(AUTOCAST_KEYS)}"
        )
    return device_type


def check_lower_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return a dtype that autocast can lower to.

    Raises:
        UnsupportedDtypeError: it is another one.
    """
    if dtype not in LOWER_DTYPES:
        raise UnsupportedDtypeError(
            f"autocast cannot lower to {dtype!r}; use {' or '.join(map(str, LOWER_DTYPES))}, "
            "or enabled=False to run in float32"
        )
    return dtype


def autocast_key(device_type: str) -> DispatchKey:
    """Return the dispatch key on which a device type's autocast kernels live."""
    return dispatch_key(AUTOCAST_KEYS[device_type])
