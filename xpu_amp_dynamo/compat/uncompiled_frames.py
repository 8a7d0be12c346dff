"""Tells the hook by which Dynamo sees frames of Python code which of them to pass over. Checked on torch 2.13.0."""

from __future__ import annotations

from types import CodeType

from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy

_PASS_OVER_WITH_ALL_CALLED = _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP)


def pass_over(code: CodeType) -> None:
    """Have Dynamo compile neither what runs some code nor what is called from there, from now on.

    The mark lies on the code object: it costs nothing at a call, and holds for all closures that a function makes.
    """
    set_code_exec_strategy(code, _PASS_OVER_WITH_ALL_CALLED)
