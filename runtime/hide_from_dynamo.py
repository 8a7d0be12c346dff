"""Keeps Dynamo from compiling this package's own runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy

_Function = TypeVar("_Function", bound=Callable[..., Any])

_SKIP_WITH_ALL_CALLED = _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP)


def hide_from_dynamo(function: _Function) -> _Function:
    """Mark a function that PyTorch calls back, so that Dynamo compiles neither it nor what it calls.

    Code that Dynamo leaves uncompiled, such as a recurrent layer or a loop that depends on data, still runs under its
    frame hook, which would take each Python kernel of the dispatcher for a program. The mark lies on the code object:
    it costs nothing at a call, and holds for all closures that a function makes. Checked on torch 2.13.0.

    Args:
        function: a Python function.

    Returns:
        The same function.
    """
    set_code_exec_strategy(function.__code__, _SKIP_WITH_ALL_CALLED)
    return function
