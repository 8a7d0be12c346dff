"""What the simulated XPU needs besides PyTorch, and how it is installed."""

from __future__ import annotations

from xpu_amp_dynamo.errors import SimulatorError


def is_missing(what: str, package: str, extra: str) -> SimulatorError:
    """Return the error of a package that is not installed.

    Args:
        what: what needs it.
        package: its name.
        extra: the extra of this project that it comes with.
    """
    return SimulatorError(
        f'{what} needs {package}, which is not installed: `pip install ".[{extra}]"` in a clone, or '
        f'`pip install "xpu-amp-dynamo[{extra}]"`'
    )


def triton_is_missing(*_: object) -> SimulatorError:
    """Return the error that compiling for an XPU ends in without Triton; takes what Inductor's own takes."""
    return is_missing("compiling for an XPU", "Triton", "simulator")
