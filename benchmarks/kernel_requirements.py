"""What inference with kept weights must not exceed on an XPU, checked on the counts of ``benchmarks.kernels``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from rich.table import Table

from benchmarks.xpu_ways import FLOAT32, FROZEN, OURS, STOCK

CONVOLUTIONAL = ("resnet", "autoencoder", "unet")
# Launches by which ours may exceed float32: casts of inputs, and of what no kernel before it can round.
LAUNCHES_BEYOND_FLOAT32 = 2
OF_STOCK, OF_FLOAT32 = 0.60, 0.62
# Numbers of one graph by what they count, for each way to compile it.
Counts = dict[str, dict[str, int]]


class Checked(NamedTuple):
    """One requirement on one model: what is measured, the figure and its limit."""

    case: str
    what: str
    figure: float
    limit: float

    @property
    def held(self) -> bool:
        """Whether the figure is within the limit."""
        return self.figure <= self.limit


def check(results: Mapping[str, Counts], program: str) -> list[Checked]:
    """Check the requirements on all counts of one program.

    Args:
        results: counts by ``"model, batch number, program"``.
        program: the one that is checked, inference with kept weights.
    """
    cases = {case: counts for case, counts in results.items() if case.endswith(f", {program}")}
    return [Checked(case, *each) for case, counts in cases.items() for each in _figures(case, counts)]


def _figures(case: str, counts: Counts) -> Iterator[tuple[str, float, float]]:
    """Yield what is required of one graph: its name, the figure and its limit."""
    ours, stock, float32, frozen = (counts[way] for way in (OURS, STOCK, FLOAT32, FROZEN))
    yield "Triton launches, float32's + 2", ours["triton"], float32["triton"] + LAUNCHES_BEYOND_FLOAT32
    yield "launches that only cast weights", ours["weight casts"], 0
    if not case.startswith(CONVOLUTIONAL):
        # Bytes are required of batch 1, where weights are most of them.
        if ", batch 1," in case:
            yield "bytes, of stock's", ours["bytes"] / stock["bytes"], OF_STOCK
        yield "bytes, of float32's", ours["bytes"] / float32["bytes"], OF_FLOAT32
    if ", batch 1," in case:
        yield "Triton launches, frozen stock's", ours["triton"], frozen["triton"]
        yield "bytes, of frozen stock's", ours["bytes"] / frozen["bytes"], 1.0


def check_table(checked: list[Checked]) -> Table:
    """Tabulate requirements, the figures, and whether each holds."""
    missed = sum(not each.held for each in checked)
    table = Table("", "requirement", "figure", "at most", "", title=f"{missed} of {len(checked)} requirements missed")
    for each in checked:
        style = None if each.held else "bold red"
        numbers = (f"{number:.3g}" for number in (each.figure, each.limit))
        table.add_row(each.case, each.what, *numbers, "held" if each.held else "MISSED", style=style)
    return table
