"""Hands the reports of lowerings to whoever asked for them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from xpu_amp_dynamo.lowering.report import LoweringReport

logger = logging.getLogger(__name__)
_collectors: list[list[LoweringReport]] = []


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
    reports: list[LoweringReport] = []
    _collectors.append(reports)
    try:
        yield reports
    finally:
        _collectors.remove(reports)


def publish_report(report: LoweringReport) -> None:
    """Log a report and append it to every list that collects."""
    logger.info("lowered a graph in %.1f ms: %d casts, %s", report.seconds * 1e3, report.casts, dict(report.ops))
    for reports in _collectors:
        reports.append(report)
