"""Times peers side by side: interleaved in one run, so that drift of the machine hits all of them alike."""

from __future__ import annotations

import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved_medians(
    peers: Mapping[str, Callable[[], object]],
    *,
    device: str,
    rounds: int = 15,
    warmup: int = 3,
    prepare: Callable[[str], object] | None = None,
) -> dict[str, float]:
    """Return the median time of each peer, in seconds.

    Args:
        peers: what to time, by name.
        device: device type whose queue is emptied around each call.
        rounds: how often each peer is timed; every round runs all of them once, in rotating order.
        warmup: how many untimed rounds come first.
        prepare: called with a peer's name before it is timed, and not timed itself.
    """
    names = list(peers)
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(warmup + rounds):
        shift = round_number % len(names)
        for name in names[shift:] + names[:shift]:
            if prepare is not None:
                prepare(name)
                synchronize(device)
            started = time.perf_counter()
            peers[name]()
            synchronize(device)
            if round_number >= warmup:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronize(device: str) -> None:
    """Wait until the device has done all that was queued."""
    if device != "cpu":
        torch.accelerator.synchronize()


def keep_freed_memory() -> None:
    """Have glibc keep freed memory, here where it is the allocator.

    It hands large tensors back to the system by a threshold that depends on the history of the process, and a peer
    whose tensors happen to come after that takes page faults in every call: twice the time for the same code.
    """
    if platform.libc_ver()[0] == "glibc":
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
            ctypes.CDLL(None).mallopt(parameter, 2**31 - 1)
