"""Bytes moved only to cast weights in one optimizer step of several micro-batches: ours beside stock autocast.

    python -m benchmarks.accumulation [--models bert llama] [--micro-batches 4] [--json results.json]

Counted are kernels of compiled code that only cast weights, as often as the code is called, and casts of weights by
eager ops, in the second step: the first one compiles. Nothing is timed: kernels are generated for a simulated XPU, and
bytes are Inductor's own account.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.kernel_requirements import CONVOLUTIONAL
from benchmarks.kernels import SIZES
from benchmarks.models import MODELS, Inputs, Size, build, loss_and_output
from benchmarks.weight_traffic import EagerCasts, WeightTraffic, record_weight_traffic
from benchmarks.xpu_ways import OURS, STOCK, compile_for, on_simulated_xpu, region_of

TRANSFORMERS = [name for name in MODELS if name not in CONVOLUTIONAL]
# What ours may move of stock's bytes once training reads casts that are kept from one micro-batch to the next.
OF_STOCK = 1 / 3
# Bytes by who moves them, compiled or eager code, for each way.
CastBytes = dict[str, dict[str, int]]


def measure(name: str, micro_batches: int, options: Mapping[str, Any]) -> CastBytes:
    """Return the bytes that casts of weights move in one optimizer step of a model, by way."""
    with on_simulated_xpu(*build(name, Size(batch=1, **SIZES[name]))) as (model, inputs):
        return {way: _cast_bytes(way, model, inputs, micro_batches, options) for way in (OURS, STOCK)}


def _cast_bytes(
    way: str, model: torch.nn.Module, inputs: Inputs, micro_batches: int, options: Mapping[str, Any]
) -> dict[str, int]:
    torch._dynamo.reset()
    traffic = WeightTraffic()
    step = _step(way, model, inputs, micro_batches, options)
    with record_weight_traffic(traffic):
        step()
        traffic.forget_calls()
        with EagerCasts(model) as eager:
            step()
    return {"compiled": traffic.bytes_of_calls, "eager": eager.bytes}


def _step(
    way: str, model: torch.nn.Module, inputs: Inputs, micro_batches: int, options: Mapping[str, Any]
) -> Callable[[], None]:
    """Return an optimizer step that sums the gradients of some micro-batches."""
    compiled = compile_for(way, model, options)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        for _ in range(micro_batches):
            with region_of(way):
                loss, _ = loss_and_output(compiled(**inputs))
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def table_of(results: Mapping[str, CastBytes], micro_batches: int) -> Table:
    """Tabulate the bytes, and whether ours are few enough."""
    table = Table("", "ours: compiled, MB", "eager, MB", "stock: compiled, MB", "eager, MB", "ours / stock", "")
    table.title = f"bytes that only cast weights, a step of {micro_batches} micro-batches, simulated Max 1550"
    for name, result in results.items():
        megabytes = (f"{result[way][where] / 1e6:.1f}" for way in (OURS, STOCK) for where in ("compiled", "eager"))
        share = share_of_stock(result)
        table.add_row(name, *megabytes, f"{share:.2f}", "held" if share <= OF_STOCK else "MISSED")
    return table


def share_of_stock(result: CastBytes) -> float:
    """Return the bytes of ours over those of stock autocast."""
    return sum(result[OURS].values()) / sum(result[STOCK].values())


def main() -> None:
    """Measure every transformer, print a table, and fail if ours moves more than it may and that was to be checked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the bytes to")
    parser.add_argument("--models", nargs="*", default=TRANSFORMERS, choices=list(MODELS))
    parser.add_argument("--micro-batches", type=int, default=4)
    parser.add_argument("--weights", help="option of our backend, its default unless given")
    parser.add_argument("--check", action="store_true", help="fail if ours moves more than a third of stock's bytes")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    console = Console(width=130)
    options = {"weights": arguments.weights} if arguments.weights else {}
    models = track(arguments.models, description="generating", console=console)
    results = {name: measure(name, arguments.micro_batches, options) for name in models}
    console.print(table_of(results, arguments.micro_batches))
    if arguments.json:
        document = {"torch": torch.__version__, "micro_batches": arguments.micro_batches, "bytes": results}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    sys.exit(arguments.check and any(share_of_stock(result) > OF_STOCK for result in results.values()))


if __name__ == "__main__":
    main()
