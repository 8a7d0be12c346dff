"""Device types and dtypes of autocast: how users name them, and which is meant when none is named."""

from __future__ import annotations

import torch

from xpu_amp_dynamo.compat.dispatcher import DispatchKey, dispatch_key
from xpu_amp_dynamo.errors import UnsupportedDeviceError, UnsupportedDtypeError
from xpu_amp_dynamo.policy.cast_rule import LOWER_DTYPES

AUTOCAST_KEYS = {"xpu": "AutocastXPU", "cuda": "AutocastCUDA", "cpu": "AutocastCPU"}
_DTYPES_BY_NAME = {
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "half": torch.float16,
}


def default_device_type() -> str:
    """Return ``"xpu"`` if there is one, else the current accelerator's type if it has autocast, else ``"cpu"``."""
    if torch.xpu.is_available():
        return "xpu"
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator is not None and accelerator.type in AUTOCAST_KEYS else "cpu"


def check_device_type(device: str | torch.device) -> str:
    """Return the type of a device that has autocast.

    Args:
        device: a device type, or a device: ``"xpu"``, ``"xpu:0"`` or ``torch.device("xpu")``. Its index means nothing,
            since autocast is a matter of the device type.

    Raises:
        UnsupportedDeviceError: it has none, or this is no device.
    """
    device_type = device.type if isinstance(device, torch.device) else _without_index(device)
    if device_type not in AUTOCAST_KEYS:
        raise UnsupportedDeviceError(f"device type {device!r} has no autocast here; use one of {sorted(AUTOCAST_KEYS)}")
    return device_type


def device_type_meant(device: str | torch.device | None) -> str:
    """Return the type of a device that has autocast, the default one for None.

    Raises:
        UnsupportedDeviceError: it has no autocast, or this is no device.
    """
    return default_device_type() if device is None else check_device_type(device)


def check_lower_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return a dtype that autocast can lower to.

    Args:
        dtype: ``torch.bfloat16`` or ``torch.float16``, or a name of one: ``"bfloat16"``, ``"bf16"``, ``"float16"``,
            ``"fp16"``, ``"half"``, with ``"torch."`` before it or not.

    Raises:
        UnsupportedDtypeError: it is another one.
    """
    named = _DTYPES_BY_NAME.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if named is None or named not in LOWER_DTYPES:
        raise UnsupportedDtypeError(
            f"autocast cannot lower to {dtype!r}; use {' or '.join(map(str, LOWER_DTYPES))}, "
            "or enabled=False to run in float32"
        )
    return named


def _without_index(device: object) -> str:
    """Return the device type in the text of a device, what was given as text if it is none."""
    kind, colon, index = str(device).partition(":")
    return kind if isinstance(device, str) and (index.isdecimal() or not colon) else str(device)


def autocast_key(device_type: str) -> DispatchKey:
    """Return the dispatch key on which a device type's autocast kernels live."""
    return dispatch_key(AUTOCAST_KEYS[device_type])
