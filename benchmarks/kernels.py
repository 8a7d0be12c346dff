"""What an XPU would launch for the real models: ours beside stock autocast and float32, counted in one run.

    python -m benchmarks.kernels [--models bert llama] [--batches 1 4] [--json results.json]

Nothing is timed: kernels are generated for a simulated XPU. Bytes are Inductor's own account.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import track
from rich.table import Table

import xpu_amp_dynamo
from benchmarks.models import MODELS, Size, build
from xpu_amp_dynamo.simulator.kernel_report import KernelReport

TRANSFORMER = {"width": 768, "layers": 2, "heads": 12, "length": 128}
IMAGES = {"width": 128, "layers": 2, "length": 64}
SIZES: dict[str, dict[str, int]] = {
    **dict.fromkeys(MODELS, TRANSFORMER),
    "vit": {**TRANSFORMER, "length": 96},
    **dict.fromkeys(("resnet", "autoencoder", "unet"), IMAGES),
}
# What is compiled: the name of a row, whether it trains, our options.
PROGRAMS: dict[str, tuple[bool, Mapping[str, Any]]] = {
    "inference": (False, {}),
    "inference, cached weights": (False, {"weights": "cached"}),
    "training": (True, {}),
}
Counts = dict[str, dict[str, int]]


def count(name: str, batch: int, program: str) -> dict[str, Counts]:
    """Return the counts of each graph kind of one model: launches, casts and bytes, by way."""
    train, options = PROGRAMS[program]
    model, inputs = build(name, Size(batch=batch, **SIZES[name]))
    beside = ("stock autocast", "float32")
    report = xpu_amp_dynamo.xpu_kernels(model, kwargs=inputs, options=options, train=train, region=True, beside=beside)
    kinds = ("forward", "backward") if train else ("forward",)
    ways = {report.way: report, **report.beside}
    return {kind: {way: _totals(each.of_graphs(kind)) for way, each in ways.items()} for kind in kinds}


def _totals(report: KernelReport) -> dict[str, int]:
    return {
        "triton": report.triton_launches,
        "casts": report.cast_launches,
        "extern": report.extern_calls,
        "bytes": report.bytes_moved,
    }


def table_of(results: Mapping[str, Counts]) -> Table:
    """Tabulate counts, ours / stock / float32 in each column."""
    table = Table("", "Triton kernels", "of these only casts", "extern calls", "MB moved", "of stock's bytes")
    for case, ways in results.items():
        counts = list(ways.values())
        columns = (" / ".join(str(each[key]) for each in counts) for key in ("triton", "casts", "extern"))
        megabytes = " / ".join(f"{each['bytes'] / 1e6:.1f}" for each in counts)
        table.add_row(case, *columns, megabytes, f"{counts[0]['bytes'] / counts[1]['bytes']:.2f}")
    table.title = f"{' / '.join(next(iter(results.values())))}, for a simulated Max 1550"
    return table


def main() -> None:
    """Count every model and program, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the counts to")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 4])
    parser.add_argument("--programs", nargs="*", default=list(PROGRAMS), choices=list(PROGRAMS))
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    console = Console(width=160)
    cases = [(n, b, p) for n in arguments.models for b in arguments.batches for p in arguments.programs]
    results = {}
    for name, batch, program in track(cases, description="generating", console=console):
        for kind, counts in count(name, batch, program).items():
            graph = f" {kind}" if PROGRAMS[program][0] else ""
            results[f"{name}, batch {batch}, {program}{graph}"] = counts
    console.print(table_of(results))
    if arguments.json:
        sizes = {name: SIZES[name] for name in arguments.models}
        document = {"torch": torch.__version__, "part": "max-1550", "sizes": sizes, "counts": results}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
