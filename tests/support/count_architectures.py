"""Fails a complete sweep that compared too few architectures, whatever process each test ran in."""

from __future__ import annotations

import pytest

SWEEP = "test_every_architecture["
PROPERTY = "architecture"
# Of those that the complete sweep takes some twenty are compared; a few more are skipped on some machines.
AT_LEAST = 14
SLOWEST = 10


class Count:
    """What became of the architectures of one run.

    Args:
        config: that of the run.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.compared: dict[str, float] = {}
        self.skipped = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test of the sweep."""
        if SWEEP not in report.nodeid or report.when != "call":
            return
        if PROPERTY in dict(report.user_properties):
            self.compared[report.nodeid] = report.duration
        else:
            self.skipped += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run if all of the sweep was run and too little compared."""
        if self.too_few():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def too_few(self) -> bool:
        """Say whether a complete sweep compared too few; one that was asked for a part of it is not complete."""
        partial = self.config.option.keyword or any("[" in argument for argument in self.config.args)
        return bool(self.compared or self.skipped) and not partial and len(self.compared) < AT_LEAST

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Say at the very end, where it is seen, why a run without failed tests fails."""
        if self.too_few():
            print(f"{len(self.compared)} architectures were compared, fewer than {AT_LEAST}")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the count and the slowest."""
        if not self.compared and not self.skipped:
            return
        terminalreporter.section("architectures")
        counts = f"{len(self.compared)} compared, {self.skipped} skipped"
        terminalreporter.line(f"{counts}; a complete sweep compares {AT_LEAST} or fails")
        for nodeid, seconds in sorted(self.compared.items(), key=lambda item: -item[1])[:SLOWEST]:
            terminalreporter.line(f"{seconds:6.1f} s  {nodeid.partition(SWEEP)[2].rstrip(']')}")


def pytest_configure(config: pytest.Config) -> None:
    """Count in the process that gets all reports."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Count(config))
