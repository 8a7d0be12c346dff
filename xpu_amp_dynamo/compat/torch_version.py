"""The versions of torch that this package fits: refuses older ones, warns of newer ones."""

from __future__ import annotations

import functools
import warnings

import torch

# Major and minor number. Before the first of these Inductor lacks hooks that the cast optimiser needs; what comes
# behind the last may have moved what this folder wraps.
OLDEST, NEWEST = (2, 11), (2, 15)
# From here on nothing is left out.
FULL = (2, 13)


def refuse_older_torch() -> None:
    """Refuse a torch that is too old.

    Raises:
        ImportError: it is older than 2.11.
    """
    if _numbers(torch.__version__) < OLDEST:
        raise ImportError(
            f"xpu_amp_dynamo needs torch {_text(OLDEST)} or newer, up to {_text(NEWEST)}, and this is torch "
            f"{torch.__version__}; install a newer one, for Intel GPUs from the index of XPU wheels on pytorch.org"
        )


@functools.cache
def warn_of_newer_torch() -> None:
    """Warn, once a process, of a torch newer than all that this package was tried on."""
    if _numbers(torch.__version__) > NEWEST:
        warnings.warn(
            f"this version of xpu_amp_dynamo was made for torch {_text(OLDEST)} to {_text(NEWEST)}, and this is torch "
            f"{torch.__version__}: it may fail or be slower there; look for a newer xpu_amp_dynamo",
            stacklevel=3,
        )


def support() -> str:
    """Return how this torch is supported: ``"full"``, ``"reduced"``, or ``"newer"`` than all that was tried."""
    numbers = _numbers(torch.__version__)
    return "newer" if numbers > NEWEST else "full" if numbers >= FULL else "reduced"


def checked_versions() -> str:
    """Return the range of versions that this package was tried on."""
    return f"{_text(OLDEST)} to {_text(NEWEST)}"


def is_older_than(version: tuple[int, int]) -> bool:
    """Tell whether this torch is older than a version, of which nightly builds count as that version."""
    return _numbers(torch.__version__) < version


def _numbers(version: str) -> tuple[int, ...]:
    """Return the major and minor number of a version, nightly builds' too."""
    return tuple(int(part) for part in version.split(".")[:2])


def _text(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
