"""Runs the passes of one moment in a graph's life: names, times, logs, verifies and leaves out."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

from xpu_amp_dynamo.lowering.collector import Collector

logger = logging.getLogger(__name__)
_runs: Collector[PassRun] = Collector()
_verifies_thoroughly: ContextVar[bool] = ContextVar("verifies_thoroughly", default=False)


class PassRun(NamedTuple):
    """One run of a pass: its name, the seconds that it took, and whether it changed the graph."""

    name: str
    seconds: float
    changed: bool


class Verifier(Protocol):
    """Knows a graph as it was before the passes, and checks what they leave."""

    def check(self, passes: str) -> None:
        """Raise LoweringError if the graph is not what passes of these names should leave."""

    def check_thoroughly(self, passes: str) -> None:
        """Do the same by computing on fake tensors what every node gives, which costs as much as a capture."""


def run_passes(
    passes: Sequence[Callable[..., bool]],
    *arguments: Any,
    verifier: Callable[[bool], Verifier],
    skip: Collection[str] = (),
) -> list[PassRun]:
    """Run passes in order, and verify what they leave: in the end, or inside :func:`verify_thoroughly` behind each.

    Args:
        passes: functions that edit a graph in place and tell whether they changed it.
        arguments: what each of them gets, the graph first.
        verifier: makes the verifier, before any pass runs; told whether it will be asked to check thoroughly.
        skip: names of passes to leave out.

    Raises:
        LoweringError: a pass broke a promise.
    """
    thorough = _verifies_thoroughly.get()
    verify = verifier(thorough)
    runs: list[PassRun] = []
    for run in passes:
        if run.__name__ in skip:
            continue
        started = time.perf_counter()
        changed = run(*arguments)
        runs.append(PassRun(run.__name__, time.perf_counter() - started, changed))
        what = "the graph" if changed else "nothing"
        logger.debug("%s changed %s in %.1f ms", run.__name__, what, runs[-1].seconds * 1e3)
        if changed and thorough:
            verify.check_thoroughly(run.__name__)
    verify.check(", ".join(run.name for run in runs if run.changed))
    _runs.add(runs)
    return runs


@contextlib.contextmanager
def record_passes() -> Iterator[list[PassRun]]:
    """Collect the runs of all passes, in any thread, until the context ends; yield the list of them."""
    with _runs.collect() as runs:
        yield runs


@contextlib.contextmanager
def verify_thoroughly() -> Iterator[None]:
    """Have what every pass leaves recomputed and checked inside the context, in this thread."""
    token = _verifies_thoroughly.set(True)
    try:
        yield
    finally:
        _verifies_thoroughly.reset(token)
