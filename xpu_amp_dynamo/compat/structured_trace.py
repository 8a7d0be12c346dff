"""Artifacts in PyTorch's structured trace, which ``TORCH_TRACE`` writes and tlparse shows. Checked on torch 2.13.0."""

from __future__ import annotations

from collections.abc import Callable

from torch._logging._internal import LazyTraceHandler, trace_log, trace_structured


def is_traced() -> bool:
    """Tell whether a structured trace is written; PyTorch's handler goes away once it finds that none is."""
    return any(isinstance(handler, LazyTraceHandler) for handler in trace_log.handlers)


def trace_artifact(name: str, text: Callable[[], str]) -> None:
    """Add an artifact to the trace, if one is written.

    Args:
        name: the name under which it is shown.
        text: makes what it holds.
    """
    if is_traced():
        trace_structured("artifact", metadata_fn=lambda: {"name": name, "encoding": "string"}, payload_fn=text)
