"""What Dynamo compiled and what it left, from the records that it keeps. Checked on torch 2.13.0."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import fx
from torch._dynamo import utils


@dataclass(frozen=True)
class Place:
    """What Dynamo says of a place in the code.

    Args:
        where: file and line.
        function: the function there.
        reason: what it says.
    """

    where: str
    function: str
    reason: str

    def __str__(self) -> str:
        """Return it as a line."""
        return f"{self.reason} ({self.where})"


@dataclass
class Compilations:
    """What Dynamo did with the frames of Python code that it saw.

    Args:
        compiled: how many times it made a graph of a frame.
        breaks: where it ended a graph in the middle of a function.
        recompiled: what it compiled again, with the guard that failed.
        skipped: frames that run uncompiled.
    """

    compiled: int = 0
    breaks: list[Place] = field(default_factory=list)
    recompiled: list[Place] = field(default_factory=list)
    skipped: list[Place] = field(default_factory=list)


# More than Dynamo keeps by itself, which is 64.
MOST = 4096


@contextlib.contextmanager
def record_compilations() -> Iterator[Compilations]:
    """Record what Dynamo does inside the context; complete when it is left."""
    utils.set_compilation_metrics_limit(MOST)
    utils.clear_compilation_metrics()
    known_breaks = len(utils.graph_break_reasons)
    record = Compilations()
    try:
        yield record
        record.breaks += map(_place_of_break, utils.graph_break_reasons[known_breaks:])
        _add_frames(record)
    finally:
        utils.set_compilation_metrics_limit(utils.DEFAULT_COMPILATION_METRICS_LIMIT)


def break_behind(gm: fx.GraphModule) -> Place | None:
    """Return where Dynamo ended a graph before the end of the program; None if it did not.

    Args:
        gm: the graph as a backend gets it.
    """
    ended = getattr(gm, "compile_subgraph_reason", None)
    return None if ended is None or not ended.graph_break else _place_of_break(ended)


def _place_of_break(reason: Any) -> Place:
    """Return where Dynamo ended a graph, by its own record."""
    frame = reason.user_stack[-1] if reason.user_stack else None
    where = f"{frame.filename}:{frame.lineno}" if frame else "unknown"
    return Place(where, frame.name if frame else "", _first_line(reason.reason))


def _add_frames(record: Compilations) -> None:
    """Add what became of each frame; records without a name are of backwards, which are graphs and no frames."""
    for metrics in (m for m in utils.get_compilation_metrics() if m.co_name is not None):
        place = (f"{metrics.co_filename}:{metrics.co_firstlineno}", str(metrics.co_name))
        if metrics.fail_type is not None:
            record.skipped.append(Place(*place, f"{metrics.fail_type}: {_first_line(metrics.fail_reason or '')}"))
        elif metrics.graph_op_count:
            record.compiled += 1
        if metrics.recompile_reason is not None:
            record.recompiled.append(Place(*place, _first_line(metrics.recompile_reason)))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
