"""The result of one check, whatever it ends in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xpu_amp_dynamo.errors import XpuAmpError

MESSAGE_LENGTH = 4000


@dataclass(frozen=True)
class Result:
    """What came of one check.

    Args:
        group: what it belongs to.
        name: what was checked.
        passed: whether it is as it should be.
        error: how far the values are from the reference, relative to it; None where nothing was compared.
        detail: what is wrong, an exception's text where there was one.
    """

    group: str
    name: str
    passed: bool
    error: float | None = None
    detail: str = ""


class WrongResult(XpuAmpError):
    """A value that is not what it should be.

    Args:
        message: what is wrong.
        error: how far the values are from the reference.
    """

    def __init__(self, message: str, error: float | None = None) -> None:
        super().__init__(message)
        self.error = error


def attempt(group: str, name: str, check: Callable[[], float | None]) -> Result:
    """Run a check, which returns an error that is small enough or raises, and say what came of it.

    Nothing that a check raises ends the self test: it is there to collect what fails.
    """
    try:
        return Result(group, name, True, check())
    except WrongResult as wrong:
        return Result(group, name, False, wrong.error, str(wrong))
    except Exception as error:
        return Result(group, name, False, None, f"{type(error).__name__}: {error}"[:MESSAGE_LENGTH])


def require_close(error: float, bound: float) -> float:
    """Return an error that is within its bound.

    Raises:
        WrongResult: it is not, or is no number.
    """
    if not error <= bound:
        raise WrongResult(f"values are off by {error:.2g} relative to the reference, allowed are {bound:.2g}", error)
    return error
