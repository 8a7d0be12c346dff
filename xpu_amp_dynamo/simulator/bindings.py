"""What ``torch._C`` and ``torch.xpu`` have in XPU builds only. Checked on torch 2.13.0."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from xpu_amp_dynamo.simulator.parts import XpuProperties

DEVICE_INDEX, STREAM, XPU_DEVICE_TYPE = 0, 0, 12


class Stream:
    """Makes the one stream of the simulated XPU. PyTorch's C++ takes no instances of subclasses of its class."""

    def __new__(cls, device: object = None, priority: int = 0, **kwargs: Any) -> torch.Stream:  # type: ignore[misc]
        """Return it, for every device and priority."""
        return torch.Stream(device="xpu")


class Event:
    """Makes events on the simulated XPU; everything before one is already done."""

    def __new__(cls, enable_timing: bool = False) -> torch.Event:  # type: ignore[misc]
        """Return a new event; its times are the host's."""
        return torch.Event(device="xpu", enable_timing=enable_timing)


def simulate_bindings(stack: contextlib.ExitStack, properties: XpuProperties) -> None:
    """Give ``torch._C`` and ``torch.xpu`` what they have in XPU builds, until ``stack`` closes."""
    for name, value in _bindings(properties).items():
        stack.enter_context(mock.patch.object(torch._C, name, value, create=True))
    for name, value in {
        "_initialized": False,
        "_cached_device_count": None,
        "_queued_calls": list(torch.xpu._queued_calls),
        "_exchange_device": _exchange_device,
        "_maybe_exchange_device": _exchange_device,
        "Stream": Stream,
        "Event": Event,
        "current_stream": lambda device=None: Stream(),
        "default_generators": (),
        "_get_device_properties": lambda index: properties,
    }.items():
        stack.enter_context(mock.patch.object(torch.xpu, name, value, create=True))
    torch.xpu.get_device_capability.cache_clear()
    stack.callback(torch.xpu.get_device_capability.cache_clear)


def _bindings(properties: XpuProperties) -> dict[str, Any]:
    """Name what XPU builds have in ``torch._C``."""

    def initialize() -> None:
        torch.xpu.default_generators = (torch.ops.simulated_xpu.default_generator(),)

    return {
        "_has_xpu": True,
        "_xpu_init": initialize,
        "_xpu_getDeviceCount": lambda: 1,
        "_xpu_getDevice": lambda: DEVICE_INDEX,
        "_xpu_setDevice": _exchange_device,
        "_xpu_canDeviceAccessPeer": lambda device, peer: device == peer,
        "_xpu_getArchFlags": lambda: "",
        "_xpu_getCurrentStream": lambda index: (STREAM, DEVICE_INDEX, XPU_DEVICE_TYPE),
        "_xpu_getCurrentRawStream": lambda index: STREAM,
        "_xpu_setStream": _do_nothing,
        "_xpu_synchronize": _do_nothing,
        **_memory_bindings(properties),
    }


def _memory_bindings(properties: XpuProperties) -> dict[str, Callable[..., Any]]:
    """Name what XPU builds have in ``torch._C`` about memory."""

    def memory_info(index: int) -> tuple[int, int]:
        return properties.total_memory - memory_in_use()[0], properties.total_memory

    def memory_stats(index: int) -> dict[str, Any]:
        current, peak = memory_in_use()
        use = {"all": {"current": current, "peak": peak, "allocated": 0, "freed": 0}}
        return {"allocated_bytes": use, "reserved_bytes": use, "active_bytes": use, "requested_bytes": use}

    return {
        "_xpu_getMemoryInfo": memory_info,
        "_xpu_memoryStats": memory_stats,
        "_xpu_resetPeakMemoryStats": lambda index: torch.ops.simulated_xpu.reset_peak_memory(),
        "_xpu_resetAccumulatedMemoryStats": _do_nothing,
        "_xpu_emptyCache": _do_nothing,
    }


def memory_in_use() -> tuple[int, int]:
    """Return the bytes that simulated XPU tensors hold now, and the most they held."""
    return torch.ops.simulated_xpu.memory_in_use()


def _exchange_device(index: int) -> int:
    """Switch to a device and return the one before; there is only one."""
    if index > DEVICE_INDEX:
        raise RuntimeError(f"the simulated XPU is one device, xpu:0; there is no xpu:{index}")
    return DEVICE_INDEX


def _do_nothing(*args: object, **kwargs: object) -> None:
    """Do nothing: work on the simulated XPU is done when its call returns, and nothing is cached."""
