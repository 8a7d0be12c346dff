"""Says which code Dynamo left uncompiled beside a graph that the options lower, since no option reaches it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from traceback import FrameSummary

import torch
from torch._dynamo.utils import graph_break_reasons

_TORCH = Path(torch.__file__).parent
# What DistributedDataParallel does around a model's forward, and where Dynamo says that it splits graphs for it: both
# break graphs, and neither calls an op (torch 2.13.0).
_OF_DATA_PARALLEL = {str(_TORCH / place) for place in ("nn/parallel/distributed.py", "_dynamo/backends/distributed.py")}
# Where frames stand that Dynamo sees behind a line of other code: managers of contexts, and what it calls for builtins.
_BEHIND = (contextlib.__file__, str(_TORCH / "_dynamo" / "polyfills"))
logger = logging.getLogger(__name__)
# Places in the code that were reported, and how many of Dynamo's reasons were looked at.
_reported: set[tuple[str, int | None]] = set()
_seen = 0


def report_uncompiled_code() -> None:
    """Log a warning, once a place, for each graph break since the last call.

    Loops that depend on data and other code at which Dynamo breaks a graph run as uncompiled code does: in the dtypes
    of their inputs where no region is open. Call this when a graph is lowered by the options alone. Functions of which
    Dynamo compiles nothing at all, as of those that call ``torch.nn.LSTM``, never reach a backend.
    """
    for filename, line, name, reason in _new_breaks():
        if (filename, line) not in _reported:
            _reported.add((filename, line))
            logger.warning(
                "Dynamo left code uncompiled at %s:%s in %s, which runs in the dtypes of its inputs and not in lower "
                "precision; call the compiled function inside xpu_amp_dynamo.autocast to lower it too. Dynamo's "
                "reason: %s",
                *(filename, line, name, reason),
            )


def _new_breaks() -> Iterator[tuple[str, int | None, str, str]]:
    """Yield place, function and first line of the reason of the graph breaks that were not looked at.

    Dynamo keeps a list of all, those of graphs without ops too (private, checked on torch 2.13.0).
    """
    global _seen
    reasons = graph_break_reasons
    first, _seen = (_seen if _seen <= len(reasons) else 0), len(reasons)
    for reason in reasons[first:]:
        frame = _frame_at(reason.user_stack)
        if frame is not None and frame.filename not in _OF_DATA_PARALLEL:
            yield frame.filename, frame.lineno, frame.name, reason.reason.partition("\n")[0]


def _frame_at(stack: list[FrameSummary]) -> FrameSummary | None:
    """Return the innermost frame of a graph break that is of code which somebody wrote for a purpose of its own."""
    return next((frame for frame in reversed(stack) if not frame.filename.startswith(_BEHIND)), None)
