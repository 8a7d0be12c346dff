"""What an XPU would launch for the real models: ours beside stock autocast and float32, counted in one run.

    python -m benchmarks.kernels [--models bert llama] [--batches 1 4] [--json results.json] [--check]

Beside cached weights stands stock autocast with Inductor's ``freezing`` too. ``--check`` says of every requirement on
inference whether it holds, and fails if one does not. Nothing is timed: kernels are generated for a simulated XPU.
Bytes are Inductor's own account.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.kernel_requirements import Counts, check, check_table
from benchmarks.models import MODELS, Size, build
from benchmarks.xpu_ways import FLOAT32, FROZEN, OURS, STOCK, Generated, generate, on_simulated_xpu

TRANSFORMER = {"width": 768, "layers": 2, "heads": 12, "length": 128}
IMAGES = {"width": 128, "layers": 2, "length": 64}
SIZES: dict[str, dict[str, int]] = {
    **dict.fromkeys(MODELS, TRANSFORMER),
    "vit": {**TRANSFORMER, "length": 96},
    **dict.fromkeys(("resnet", "autoencoder", "unet"), IMAGES),
}


class Program(NamedTuple):
    """What is compiled of a model: with which options of ours, for training or not, and in which ways."""

    options: Mapping[str, Any]
    train: bool
    ways: tuple[str, ...]


CACHED = "inference, cached weights"
PROGRAMS = {
    "inference": Program({"weights": "recast"}, False, (OURS, STOCK, FLOAT32)),
    CACHED: Program({"weights": "cached"}, False, (OURS, STOCK, FLOAT32, FROZEN)),
    # A step on its own, its casts in it; `accumulation` counts steps of several micro-batches.
    "training": Program({"weights": "recast"}, True, (OURS, STOCK, FLOAT32)),
}


def count(name: str, batch: int, program: Program) -> dict[str, Counts]:
    """Return the counts of each graph kind of one model: launches, casts and bytes, by way."""
    with on_simulated_xpu(*build(name, Size(batch=batch, **SIZES[name]))) as (model, inputs):
        generated = {way: generate(way, model, inputs, program.options, program.train) for way in program.ways}
    kinds = ("forward", "backward") if program.train else ("forward",)
    return {kind: {way: _totals(each, kind) for way, each in generated.items()} for kind in kinds}


def _totals(generated: Generated, kind: str) -> dict[str, int]:
    report = generated.kernels.of_graphs(kind)
    totals = {
        "triton": report.triton_launches,
        "casts": report.cast_launches,
        "extern": report.extern_calls,
        "bytes": report.bytes_moved,
    }
    graphs = [graph for graph in generated.traffic.graphs if graph.kind == kind]
    casts, copies = (sum(getattr(graph, what) for graph in graphs) for what in ("casts", "copies"))
    return {**totals, "weight casts": casts, "weight copies": copies}


def table_of(results: Mapping[str, Counts]) -> Table:
    """Tabulate counts, those of all ways in each column."""
    table = Table(
        "", "Triton kernels", "of these only casts", "extern calls", "MB moved", "of stock's bytes", "of frozen's"
    )
    for case, ways in results.items():
        counts = list(ways.values())
        columns = (" / ".join(str(each[key]) for each in counts) for key in ("triton", "casts", "extern"))
        megabytes = " / ".join(f"{each['bytes'] / 1e6:.1f}" for each in counts)
        shares = [f"{counts[0]['bytes'] / each['bytes']:.2f}" for each in (counts[1], *counts[3:])]
        table.add_row(case, *columns, megabytes, *shares)
    most_ways = max(results.values(), key=len)
    table.title = f"{' / '.join(most_ways)}, for a simulated Max 1550"
    return table


def main() -> None:
    """Count every model and program, print a table, and check the requirements if asked to."""
    arguments = _arguments()
    transformers.logging.set_verbosity_error()
    console = Console(width=170)
    cases = [(n, b, p) for n in arguments.models for b in arguments.batches for p in arguments.programs]
    results = {}
    for name, batch, program in track(cases, description="generating", console=console):
        for kind, counts in count(name, batch, PROGRAMS[program]).items():
            graph = f" {kind}" if PROGRAMS[program].train else ""
            results[f"{name}, batch {batch}, {program}{graph}"] = counts
    console.print(table_of(results))
    if arguments.json:
        sizes = {name: SIZES[name] for name in arguments.models}
        document = {"torch": torch.__version__, "part": "max-1550", "sizes": sizes, "counts": results}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.check:
        checked = check(results, CACHED)
        console.print(check_table(checked))
        sys.exit(any(not each.held for each in checked))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the counts to")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 4])
    parser.add_argument("--programs", nargs="*", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--check", action="store_true", help="check the requirements on inference with cached weights")
    return parser.parse_args()


if __name__ == "__main__":
    main()
