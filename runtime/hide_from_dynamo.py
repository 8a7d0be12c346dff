"""Keeps Dynamo from compiling this package's own runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from xpu_amp_dynamo.compat.uncompiled_frames import pass_over

_Function = TypeVar("_Function", bound=Callable[..., Any])


def hide_from_dynamo(function: _Function) -> _Function:
    """Mark a function that PyTorch calls back, so that Dynamo compiles neither it nor what it calls.

    Code that Dynamo leaves uncompiled, such as a recurrent layer or a loop that depends on data, still runs under its
    frame hook, which would take each Python kernel of the dispatcher for a program.

    Args:
        function: a Python function.

    Returns:
        The same function.
    """
    pass_over(function.__code__)
    return function
