"""How near compiled code is to eager autocast and to float32, for ``precision="fast"`` and ``"exact"``.

    python -m benchmarks.precision [--models bert llama] [--json results.json]

All run inside a region of our eager ``autocast``. Errors are norms of differences, relative to the float32 output.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.progress import track
from rich.table import Table

import xpu_amp_dynamo
from benchmarks.models import MODELS, Size, build, loss_and_output
from xpu_amp_dynamo.options import PRECISIONS

SIZE = Size(width=64, layers=2, heads=4, batch=2, length=32)


def measure(name: str, device: str) -> dict[str, float]:
    """Return the errors of eager and compiled outputs of one model, and how many elements equal eager's."""
    model, inputs = build(name, SIZE, device)
    with torch.no_grad():
        reference = loss_and_output(model(**inputs))[1].double()
        with xpu_amp_dynamo.autocast(device):
            eager = loss_and_output(model(**inputs))[1]
        result = {"eager": _error(eager, reference)}
        for precision in PRECISIONS:
            torch._dynamo.reset()
            compiled = torch.compile(model, backend="xpu_amp", options={"precision": precision})
            with xpu_amp_dynamo.autocast(device):
                output = loss_and_output(compiled(**inputs))[1]
            result[precision] = _error(output, reference)
            result[f"{precision} beside eager"] = _error(output, eager.double())
            result[f"{precision} equal to eager"] = float((output == eager).double().mean())
    return result


def _error(output: torch.Tensor, reference: torch.Tensor) -> float:
    return float((output.double() - reference).norm() / reference.norm())


def table_of(results: Mapping[str, Mapping[str, float]], device: str) -> Table:
    """Tabulate the errors of all models."""
    headings = ("eager", *(f"{p}{what}" for p in PRECISIONS for what in ("", " beside eager", " equal to eager")))
    table = Table("", *headings, title=f"errors of outputs on {device}")
    for name, result in results.items():
        cells = (f"{result[h]:.0%}" if "equal" in h else f"{result[h]:.5f}" for h in headings)
        table.add_row(name, *cells)
    return table


def main() -> None:
    """Measure every model and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the errors to")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    device = xpu_amp_dynamo.default_device_type()
    console = Console(width=150)
    results = {name: measure(name, device) for name in track(arguments.models, "measuring", console=console)}
    console.print(table_of(results, device))
    if arguments.json:
        document = {"torch": torch.__version__, "device": device, "errors": results}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
