"""What timing takes: interleaved rounds, by the same code as ``xpu-amp bench``, and memory that is kept."""

from __future__ import annotations

import ctypes
import platform

from xpu_amp_dynamo.command_line.timing import interleaved_medians, synchronize

__all__ = ["interleaved_medians", "keep_freed_memory", "synchronize"]


def keep_freed_memory() -> None:
    """Have glibc keep freed memory, here where it is the allocator.

    It hands large tensors back to the system by a threshold that depends on the history of the process, and a peer
    whose tensors happen to come after that takes page faults in every call: twice the time for the same code.
    """
    if platform.libc_ver()[0] == "glibc":
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
            ctypes.CDLL(None).mallopt(parameter, 2**31 - 1)
