"""What ``explain`` returns: graphs with their calls and casts, as tables, as JSON and as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from xpu_amp_dynamo.explanation.compare import NodeError
from xpu_amp_dynamo.explanation.fates import Fate
from xpu_amp_dynamo.explanation.page import page_of
from xpu_amp_dynamo.explanation.text import call_table, cast_table, error_table, module_table
from xpu_amp_dynamo.lowering.records import LoweredCall, LoweredCast, LoweredNode, dtype_name
from xpu_amp_dynamo.simulator.report_text import text_of

# The width of a terminal whose user has not changed it.
WIDTH = 80


@dataclass(frozen=True)
class ExplainedGraph:
    """One graph that Dynamo captured.

    Args:
        calls: its calls on tensors, in program order.
        casts: the casts that the lowering put there, in program order.
        fates: what became of each cast, by its tag; empty where another backend than Inductor compiled the graph.
        errors: what each call and cast adds to the error, and the error so far, by tag; empty without a comparison.
        ends_because: why Dynamo ended the graph before the end of the program, with the line; empty if it did not.
    """

    calls: Sequence[LoweredCall]
    casts: Sequence[LoweredCast]
    fates: dict[str, Fate] = field(default_factory=dict)
    errors: dict[str, NodeError] = field(default_factory=dict)
    ends_because: str = ""

    @property
    def nodes(self) -> list[LoweredNode]:
        """Its calls and its casts."""
        return [*self.calls, *self.casts]


@dataclass(frozen=True)
class Explanation:
    """Which op of a model runs in which dtype, why, and what that costs. Printing it gives a summary.

    Args:
        model: the name of the model's class, or of the function.
        graphs: the graphs that the model was captured in, in the order of capture.
        recompiles: why Dynamo captured code again that it had captured before.
    """

    model: str
    graphs: Sequence[ExplainedGraph]
    recompiles: Sequence[str] = ()

    @property
    def calls(self) -> list[LoweredCall]:
        """The calls of all graphs."""
        return [call for graph in self.graphs for call in graph.calls]

    @property
    def casts(self) -> list[LoweredCast]:
        """The casts of all graphs."""
        return [cast for graph in self.graphs for cast in graph.casts]

    @property
    def nodes(self) -> list[LoweredNode]:
        """The calls and casts of all graphs."""
        return [node for graph in self.graphs for node in graph.nodes]

    @property
    def fates(self) -> dict[str, Fate]:
        """What became of each cast, by its tag."""
        return {tag: fate for graph in self.graphs for tag, fate in graph.fates.items()}

    @property
    def errors(self) -> dict[str, NodeError]:
        """The errors of calls and casts by tag, where the model was compared with float32."""
        return {tag: error for graph in self.graphs for tag, error in graph.errors.items()}

    def worst(self, count: int = 10) -> list[LoweredNode]:
        """Return the calls and casts that add the largest errors themselves, the worst first, none that add nothing.

        Args:
            count: how many.
        """
        errors = self.errors
        nodes = [node for node in self.nodes if node.tag in errors and errors[node.tag].own]
        return sorted(nodes, key=lambda node: errors[node.tag].own, reverse=True)[:count]

    def first_overflow(self) -> LoweredNode | None:
        """Return what first gave an infinity or NaN where float32 gives a number; None if nothing did."""
        for graph in self.graphs:
            nodes = {node.tag: node for node in graph.nodes}
            found = next((tag for tag, error in graph.errors.items() if error.overflowed), None)
            if found is not None:
                return nodes[found]
        return None

    def table(self) -> Table:
        """Return a table of all calls in program order."""
        return call_table(self.calls)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return everything as JSON, and write it to a file if one is named.

        Args:
            path: the file; it is replaced if it exists.
        """
        text = json.dumps(_plain(self), indent=1, default=_as_text) + "\n"
        if path is not None:
            Path(path).write_text(text)
        return text

    def to_html(self, path: str | Path) -> None:
        """Write everything as one page that needs nothing else, to look at in a browser.

        Args:
            path: the file; it is replaced if it exists.
        """
        Path(path).write_text(page_of(json.loads(self.to_json())), encoding="utf-8")

    def print(self, console: Console | None = None) -> None:
        """Print a summary: what runs how by module, and the most expensive casts."""
        console = console or Console()
        console.print(module_table(self.calls, self.casts, self.errors))
        if self.casts:
            console.print(cast_table(self.casts, self.fates))
        if self.errors:
            console.print(error_table(self.worst(), self.errors))
        for sentence in self._sentences():
            console.print(sentence, highlight=False)

    def _sentences(self) -> Iterator[str]:
        """Yield what tables do not say: where graphs end, what was captured again, what overflows."""
        if not self.graphs:
            yield "nothing was compiled: Dynamo captured no graph, and ran everything as uncompiled code"
            return
        ends = [graph.ends_because for graph in self.graphs if graph.ends_because]
        yield f"{len(self.graphs)} graph{'' if len(self.graphs) == 1 else 's'}, {len(ends)} ended by graph breaks"
        yield from (f"  graph break: {reason}" for reason in ends)
        yield from (f"  captured again: {reason}" for reason in self.recompiles)
        overflow = self.first_overflow()
        if overflow is not None:
            place = ", ".join(filter(None, (overflow.line, f"module {overflow.module}" if overflow.module else "")))
            yield f"{overflow.name} ({place or 'no line of code'}) is the first that overflows"

    def __str__(self) -> str:
        """Return the summary as text."""
        return text_of(self, WIDTH)


def _plain(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as dicts and lists of what JSON can hold, dtypes and sizes as text."""
    graphs = [
        {
            "calls": [_plain_node(call, graph) for call in graph.calls],
            "casts": [
                _plain_node(cast, graph) | {"bytes": str(cast.bytes), "bytes_now": cast.bytes_now}
                for cast in graph.casts
            ],
            "ends_because": graph.ends_because,
        }
        for graph in explanation.graphs
    ]
    return {"model": explanation.model, "graphs": graphs, "recompiles": list(explanation.recompiles)}


def _plain_node(node: LoweredNode, graph: ExplainedGraph) -> dict[str, Any]:
    fate, error = graph.fates.get(node.tag), graph.errors.get(node.tag)
    found = {"fate": fate and asdict(fate), "error": error and asdict(error)}
    return asdict(node) | {key: value for key, value in found.items() if value is not None}


def _as_text(value: object) -> str:
    return dtype_name(value) if isinstance(value, torch.dtype) else str(value)
