"""What ``tune`` returns: options for the backend, with what they were found to give; kept in TOML files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomlkit
import tomlkit.exceptions
import torch
from rich.console import Console
from rich.table import Table

from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.options import BackendOptions
from xpu_amp_dynamo.plain_options import options_from, plain
from xpu_amp_dynamo.simulator.kernel_report import readable_bytes
from xpu_amp_dynamo.simulator.report_text import text_of

# The width of a terminal whose user has not changed it.
WIDTH = 80


@dataclass(frozen=True)
class Measured:
    """What was measured of one choice of options.

    Args:
        error: how far the model is from float32, by the metric.
        cost: bytes or seconds of a call.
    """

    error: float
    cost: float


@dataclass(frozen=True)
class Tuning:
    """Options that ``tune`` found for a model. Printing it says what they save.

    Args:
        model: the name of the model's class.
        options: what goes into ``torch.compile(model, backend="xpu_amp", options=...)``.
        start: what was measured of the options that the search started from.
        tuned: what was measured of those that it found.
        tolerance: the largest error that was allowed.
        cost: what was saved, ``"bytes"`` or ``"time"``.
        trials: how many choices were measured.
        finished: whether nothing was left to try when the search ended.
    """

    model: str
    options: Mapping[str, Any]
    start: Measured
    tuned: Measured
    tolerance: float
    cost: str
    trials: int
    finished: bool = True

    def save(self, path: str | Path) -> None:
        """Write it into a TOML file.

        Args:
            path: the file; it is replaced if it exists.
        """
        found = {name: value for name, value in asdict(self).items() if name != "options"}
        document = {"torch": torch.__version__, "options": plain(self.options), "found": found}
        Path(path).write_text(tomlkit.dumps(document))

    @classmethod
    def load(cls, path: str | Path) -> Tuning:
        """Read what :meth:`save` wrote.

        Args:
            path: the file.

        Raises:
            InvalidOptionError: this is no such file, or it has an option that the backend does not know.
            FileNotFoundError: there is no file.
        """
        try:
            document = tomlkit.parse(Path(path).read_text()).unwrap()
            found = dict(document["found"])
            start, tuned = (Measured(**found.pop(name)) for name in ("start", "tuned"))
            tuning = cls(options=options_from(document["options"]), start=start, tuned=tuned, **found)
        except (tomlkit.exceptions.ParseError, KeyError, TypeError) as error:
            raise InvalidOptionError(f"{path} is no tuning: {error}; give a file that Tuning.save wrote") from error
        BackendOptions.parse(tuning.options)
        return tuning

    def print(self, console: Console | None = None) -> None:
        """Print what the options are, and what they save."""
        console = console or Console()
        console.print(f"{self.model}, error at most {self.tolerance:.3g}", highlight=False, markup=False)
        table = Table()
        for heading in ("", "error", self.cost):
            table.add_column(heading, justify="right" if heading else "left")
        table.add_row("start", f"{self.start.error:.3g}", self._readable(self.start.cost))
        table.add_row("tuned", f"{self.tuned.error:.3g}", self._readable(self.tuned.cost))
        console.print(table)
        for sentence in self._sentences():
            console.print(sentence, highlight=False, markup=False)

    def _sentences(self) -> list[str]:
        lists = [f"{name} = {self.options[name]}" for name in ("keep_float32", "keep_lower") if self.options.get(name)]
        saved = 1 - self.tuned.cost / self.start.cost if self.start.cost else 0.0
        ended = "" if self.finished else ", and more were left when the budget was spent"
        words = f"{abs(saved):.1%} {'saved' if saved >= 0 else 'more'}" if lists else "nothing better was found"
        return [*lists, f"{words}; {self.trials} trials{ended}"]

    def _readable(self, cost: float) -> str:
        return readable_bytes(int(cost)) if self.cost == "bytes" else f"{cost * 1e3:.3f} ms"

    def __str__(self) -> str:
        """Return what is printed as text."""
        return text_of(self, WIDTH)
