"""A meter of costs for tests in which errors alone decide."""

from __future__ import annotations

from xpu_amp_dynamo.tuning.measure import Options


class FreeMeter:
    """A meter by which nothing saves anything, so that only errors decide and nothing is compiled."""

    def __init__(self, *_: object) -> None: ...

    def cost(self, options: Options) -> float:
        """Return the same for all options."""
        return 1.0

    def saves(self, cost: float, than: float) -> bool:
        """Tell that nothing does."""
        return False
