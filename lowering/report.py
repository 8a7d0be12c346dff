"""What a lowering did, counted and, where somebody asks for it, call by call; and who gets that."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from xpu_amp_dynamo.compat.structured_trace import is_traced
from xpu_amp_dynamo.lowering.collector import Collector
from xpu_amp_dynamo.lowering.records import LoweredCall, LoweredCast

logger = logging.getLogger(__name__)
_reports: Collector[LoweringReport] = Collector()
_wants_details: ContextVar[bool] = ContextVar("wants_details", default=False)


@dataclass
class LoweringReport:
    """What one lowering did to a graph and its subgraphs.

    ``ops`` counts calls on tensors by what the policy did with them: ``"lower_precision"``, ``"float32"``,
    ``"promote"``, ``"follow"``, ``"composite"`` (replaced by the ops inside it), ``"foreign"`` (cast as the autocast
    kernel of its own library does), ``"kept_float32"`` (inside a module that an option keeps so, in a region) or
    ``"untouched"``. ``casts`` counts the casts in the lowered graph that the lowering put there. ``seconds`` is how
    long it took. ``kept`` maps each pattern of ``keep_float32`` and ``keep_lower`` that matched in the graph to
    the names of the modules that it matched there. ``calls`` and ``each_cast`` list calls and casts one by one, in
    program order, where :func:`record_lowerings` is asked for details. ``number`` counts the lowerings of this process.
    ``device_type`` is what it was for, and ``present`` the device types that have tensors in the graph.
    """

    ops: Counter[str] = field(default_factory=Counter)
    casts: int = 0
    seconds: float = 0.0
    kept: dict[str, list[str]] = field(default_factory=dict)
    calls: list[LoweredCall] = field(default_factory=list)
    each_cast: list[LoweredCast] = field(default_factory=list)
    number: int = field(default_factory=itertools.count().__next__)
    device_type: str = ""
    present: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """Return the report as a sentence."""
        done = {what.replace("_", " "): count for what, count in self.ops.most_common() if what != "untouched"}
        calls = ", ".join(f"{count} {what}" for what, count in done.items()) or "no call that the policy lists"
        left = f", {self.ops['untouched']} left as they are" if self.ops["untouched"] else ""
        casts = f"{self.casts} cast{'' if self.casts == 1 else 's'}, in {self.seconds * 1e3:.1f} ms"
        return f"{calls}{left}; {casts}{self._missed()}"

    def _missed(self) -> str:
        """Return what to say where the graph has tensors, and none on the device type that it was lowered for."""
        if not self.present or self.device_type in self.present:
            return ""
        return (
            f"; its tensors are on {' and '.join(sorted(self.present))}, which lowering for {self.device_type} leaves"
        )


@contextlib.contextmanager
def record_lowerings(details: bool = False) -> Iterator[list[LoweringReport]]:
    """Collect the reports of all graphs that are lowered inside the context, in any thread.

    Args:
        details: have the lowerings of this thread list every call and every cast.

    Yields:
        The list that the reports are appended to, one for each graph.

    Example:
        >>> with xpu_amp_dynamo.record_lowerings() as reports:
        ...     torch.compile(model, backend="xpu_amp")(x)
        >>> sum(report.casts for report in reports)
    """
    token = _wants_details.set(details or _wants_details.get())
    try:
        with _reports.collect() as reports:
            yield reports
    finally:
        _wants_details.reset(token)


def wants_details() -> bool:
    """Tell whether a lowering of this thread is to list every call and every cast."""
    return records_details() or logger.isEnabledFor(logging.DEBUG) or is_traced()


def records_details() -> bool:
    """Tell whether somebody collects details in this thread, and may want to know nodes again in later graphs."""
    return _wants_details.get()


def publish_report(report: LoweringReport) -> None:
    """Log a report and append it to every list that collects."""
    logger.info("lowered a graph: %s", report)
    if report.kept:
        logger.info("kept modules: %s", report.kept)
    for call in report.calls:
        logger.debug("%s", call)
    for cast in report.each_cast:
        logger.debug("%s", cast)
    _reports.add([report])
