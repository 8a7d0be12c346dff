"""How reports are printed: wide, whatever the terminal."""

from __future__ import annotations

import io
from typing import Protocol

from rich.console import Console

# Narrower, columns would vanish; this is what a pipe gets too.
WIDTH = 180


class Printable(Protocol):
    """What prints itself on a console."""

    def print(self, console: Console | None = None) -> None:
        """Print it."""


def wide_console() -> Console:
    """Return a console of the terminal's width, or wider."""
    return Console(width=max(Console().width, WIDTH))


def text_of(report: Printable, width: int = WIDTH) -> str:
    """Return what a report prints on a console of a width."""
    text = io.StringIO()
    report.print(Console(file=text, width=width))
    return text.getvalue()
