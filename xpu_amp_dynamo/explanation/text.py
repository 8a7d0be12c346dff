"""The tables that an explanation prints; each fits in 80 columns."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import torch
from rich import box
from rich.table import Table

from xpu_amp_dynamo.explanation.compare import NodeError
from xpu_amp_dynamo.explanation.fates import Fate
from xpu_amp_dynamo.lowering.records import LoweredCall, LoweredCast, LoweredNode, dtype_name
from xpu_amp_dynamo.policy.cast_rule import LOWER_DTYPES
from xpu_amp_dynamo.simulator.kernel_report import readable_bytes

SHORT = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32", torch.float64: "f64"}
# Modules are taken together from the top of the tree until there are as few lines as this.
MOST_LINES = 20
MOST_CASTS = 10
# What is left of 80 columns for the name of a module.
WHERE = 40
OUTSIDE = "(no module)"
Nodes = Sequence[LoweredNode]


def module_table(calls: Sequence[LoweredCall], casts: Sequence[LoweredCast], errors: Mapping[str, NodeError]) -> Table:
    """Tabulate by module how many calls run in which precision, and the casts with their bytes."""
    nodes: list[LoweredNode] = [*calls, *casts]
    depth = _depth_that_fits([node.module for node in nodes])
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    worst: defaultdict[str, float] = defaultdict(float)
    for call in calls:
        counts[_head(call.module, depth)][_precision(call)] += 1
    for cast in casts:
        counts[_head(cast.module, depth)].update({"casts": 1, "bytes": cast.bytes_now})
    for node in nodes:
        if node.tag in errors:
            worst[_head(node.module, depth)] = max(worst[_head(node.module, depth)], errors[node.tag].own)
    table = _table("calls by module", "module", numbers=("lower", "float32", "other", "casts", "bytes"))
    if errors:
        table.add_column("worst", justify="right")
    for module, count in counts.items():
        numbers = (str(count[key] or "") for key in ("lower", "float32", "other", "casts"))
        moved = readable_bytes(count["bytes"]) if count["bytes"] else ""
        table.add_row(module, *numbers, moved, *([f"{worst[module]:.1e}"] if errors else []))
    return table


def cast_table(casts: Sequence[LoweredCast], fates: Mapping[str, Fate]) -> Table:
    """Tabulate the casts that move most bytes."""
    title = "the most expensive casts" if len(casts) > MOST_CASTS else "casts"
    table = _table(title, "dtypes", "became", numbers=("bytes",))
    table.add_column("where", overflow="ellipsis", no_wrap=True, max_width=WHERE)
    for cast in sorted(casts, key=lambda cast: cast.bytes_now, reverse=True)[:MOST_CASTS]:
        fate = fates[cast.tag].kind if cast.tag in fates else ""
        table.add_row(_dtypes(cast), fate, readable_bytes(cast.bytes_now), cast.module or cast.line)
    return table


def error_table(nodes: Nodes, errors: Mapping[str, NodeError]) -> Table:
    """Tabulate calls and casts with the error that each adds itself, and the error so far."""
    table = _table("what adds the largest errors itself", numbers=("adds", "so far", "largest"))
    for heading, width in (("op", WHERE // 2), ("dtypes", WHERE // 3), ("where", WHERE // 2)):
        table.add_column(heading, overflow="ellipsis", no_wrap=True, max_width=width)
    for node in nodes:
        error = errors[node.tag]
        numbers = (f"{number:.1e}" for number in (error.own, error.accumulated, error.largest))
        table.add_row(*numbers, _op(node), _dtypes(node), node.module or node.line)
    return table


def call_table(calls: Sequence[LoweredCall]) -> Table:
    """Tabulate calls in program order with the reason of each."""
    table = _table("calls in program order", "module", "op", "dtypes", "because")
    for call in calls:
        table.add_row(call.module, call.inside or call.op, _dtypes(call), call.reason)
    return table


def _table(title: str, *headings: str, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table with columns of words and of numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _op(node: LoweredNode) -> str:
    return node.op if isinstance(node, LoweredCall) else "cast"


def _dtypes(node: LoweredNode) -> str:
    if isinstance(node, LoweredCall):
        return f"{_names(node.input_dtypes)} to {_names(node.output_dtypes)}"
    assert isinstance(node, LoweredCast)
    return f"{_names([node.from_dtype])} to {_names([node.to_dtype])}"


def _names(dtypes: Iterable[torch.dtype]) -> str:
    """Return short names of dtypes, each once."""
    return ", ".join(dict.fromkeys(SHORT.get(dtype, dtype_name(dtype)) for dtype in dtypes))


def _precision(call: LoweredCall) -> str:
    """Return in which precision a call gives its result."""
    if any(dtype in LOWER_DTYPES for dtype in call.output_dtypes):
        return "lower"
    return "float32" if torch.float32 in call.output_dtypes else "other"


def _depth_that_fits(modules: Iterable[str]) -> int:
    """Return how many parts of the names of modules to tell apart, so that there are not too many lines."""
    names = set(modules)
    depths = range(1, max((name.count(".") + 1 for name in names), default=1) + 1)
    return max((depth for depth in depths if len({_head(name, depth) for name in names}) <= MOST_LINES), default=1)


def _head(module: str, depth: int) -> str:
    return ".".join(module.split(".")[:depth]) or OUTSIDE
