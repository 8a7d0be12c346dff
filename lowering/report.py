"""Counts of what a lowering did, and who gets them."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from xpu_amp_dynamo.lowering.collector import Collector

logger = logging.getLogger(__name__)
_reports: Collector[LoweringReport] = Collector()


@dataclass
class LoweringReport:
    """What one lowering did to a graph and its subgraphs.

    ``ops`` counts calls on tensors by what the policy did with them: ``"lower_precision"``, ``"float32"``,
    ``"promote"``, ``"follow"``, ``"composite"`` (replaced by the ops inside it), ``"foreign"`` (cast as the autocast
    kernel of its own library does) or ``"untouched"``. ``casts`` counts the casts in the lowered graph that the
    lowering put there.
    ``seconds`` is the time the lowering took.
    """

    ops: Counter[str] = field(default_factory=Counter)
    casts: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def record_lowerings() -> Iterator[list[LoweringReport]]:
    """Collect the reports of all graphs that are lowered inside the context, in any thread.

    Yields:
        The list that the reports are appended to, one for each graph.

    Example:
        >>> with xpu_amp_dynamo.record_lowerings() as reports:
        ...     torch.compile(model, backend="xpu_amp")(x)
        >>> sum(report.casts for report in reports)
    """
    with _reports.collect() as reports:
        yield reports


def publish_report(report: LoweringReport) -> None:
    """Log a report and append it to every list that collects."""
    logger.info("lowered a graph in %.1f ms: %d casts, %s", report.seconds * 1e3, report.casts, dict(report.ops))
    _reports.add([report])
