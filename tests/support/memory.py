"""Memory of this process."""

from __future__ import annotations

from pathlib import Path

STATISTICS = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Return how much memory this process has resident; only Linux tells it this way."""
    return int(STATISTICS.read_text().split()[1]) * 4096
