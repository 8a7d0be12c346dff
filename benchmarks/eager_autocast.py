"""Eager ``autocast`` beside stock ``torch.autocast`` on the real models, interleaved in one run.

    python -m benchmarks.eager_autocast [--models bert llama] [--json results.json]

The decode case is a Llama that is given one token, so that nearly all time goes into reading and casting weights. Only
one policy can be installed at a time, so the stock rounds run with ours removed; installing and removing takes place
outside the timed calls.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.progress import track
from rich.table import Table

import xpu_amp_dynamo
from benchmarks.models import MODELS, Size, build, loss_and_output
from xpu_amp_dynamo.tuning.timing import interleaved_medians, keep_freed_memory

SIZE = Size(width=512, layers=2, heads=8, batch=4, length=64)
DECODE = "llama decode, hidden 1536"
DECODE_SIZE = Size(width=1536, layers=4, heads=12, batch=1, length=1)
ROUNDS, WARMUP = 15, 2
OURS = ("ours: policy torch", "ours: policy xpu")
PEERS = {"stock": None, "ours: policy torch": "torch", "ours: policy xpu": "xpu"}


def measure(name: str, device: str, train: bool) -> dict[str, float]:
    """Return the median seconds of each peer's step of one model."""
    model, inputs = build("llama", DECODE_SIZE, device) if name == DECODE else build(name, SIZE, device)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(train), torch.autocast(device, torch.bfloat16):
            loss, _ = loss_and_output(model(**inputs))
        if train:
            loss.backward()

    def prepare(peer: str) -> None:
        policy = PEERS[peer]
        if policy is None:
            xpu_amp_dynamo.uninstall(device)
        else:
            xpu_amp_dynamo.install(xpu_amp_dynamo.Policy.named(policy), device)
        step()  # the first step after a change of kernels fills caches

    peers = dict.fromkeys(PEERS, step)
    medians = interleaved_medians(peers, device=device, rounds=ROUNDS, warmup=WARMUP, prepare=prepare)
    xpu_amp_dynamo.uninstall(device)
    return medians


def main() -> None:
    """Measure every model, inference and training, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the medians to")
    parser.add_argument("--models", nargs="*", default=[*MODELS, DECODE], choices=[*MODELS, DECODE])
    arguments = parser.parse_args()
    keep_freed_memory()
    transformers.logging.set_verbosity_error()
    device = xpu_amp_dynamo.default_device_type()
    console = Console()
    cases = [(name, train) for name in arguments.models for train in (False, True) if name != DECODE or not train]
    results = {}
    for name, train in track(cases, description="measuring", console=console):
        results[f"{name}, {'training' if train else 'inference'}"] = measure(name, device, train)
    table = Table("model", "stock, ms", *(f"{p}, of stock" for p in OURS), title=f"eager autocast on {device}")
    for case, medians in results.items():
        ratios = (f"{medians[peer] / medians['stock']:.2f}" for peer in OURS)
        table.add_row(case, f"{medians['stock'] * 1e3:.2f}", *ratios)
    console.print(table)
    if arguments.json:
        machine = {"device": device, "torch": torch.__version__, "threads": torch.get_num_threads()}
        arguments.json.write_text(json.dumps({**machine, "median_seconds": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
