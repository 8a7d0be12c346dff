"""The autocast state of a thread, beyond what ``torch`` itself has functions for. Checked on torch 2.13.0."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

# A context in which autocast is off for all device types. Compiled code enters it at every call: it is PyTorch's own
# class, with no call of Python around it.
disabling_autocast: Callable[[], AbstractContextManager[object]] = torch._C._DisableAutocast


def autocast_device_types() -> list[str]:
    """List the device types that have an autocast state, be there such a device or not."""
    return torch._C._autocast_supported_devices()
