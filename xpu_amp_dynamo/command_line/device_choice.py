"""The device that a command runs on."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from xpu_amp_dynamo.errors import UnsupportedDeviceError
from xpu_amp_dynamo.policy.devices import AUTOCAST_KEYS, check_device_type, default_device_type


def chosen_device(device: str | None) -> str:
    """Return the device type to run on.

    Args:
        device: what was asked for; None for the best there is.

    Raises:
        UnsupportedDeviceError: it has no autocast, or there is none of it here.
    """
    if device is None:
        return default_device_type()
    check_device_type(device)
    if device != "cpu" and not torch.get_device_module(device).is_available():
        here = [kind for kind in AUTOCAST_KEYS if kind == "cpu" or torch.get_device_module(kind).is_available()]
        raise UnsupportedDeviceError(
            f"there is no {device!r} device here; use --device {' or '.join(here)}, and see `xpu-amp doctor`"
        )
    return device


def simulating(wanted: bool, mode: str = "run") -> contextlib.AbstractContextManager[Any]:
    """Return a context with a simulated XPU in a mode of :func:`simulated_xpu`, or without one."""
    if not wanted:
        return contextlib.nullcontext()
    from xpu_amp_dynamo.simulator.simulated_xpu import simulated_xpu

    return simulated_xpu(mode=mode)
