"""Which of many like cases CI takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_or_sweep(names: Iterable[str], *slow: str) -> list[Any]:
    """Return parameters for names, of which the slow tests take some, and the larger sweeps the others."""
    return [pytest.param(name, marks=pytest.mark.slow if name in slow else pytest.mark.sweep) for name in names]
