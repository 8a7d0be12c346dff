"""How long training steps take on the simulated XPU: by the interpreter, and by Intel's OpenCL runtime, cold and warm.

    python -m benchmarks.simulator_modes [--models bert unet] [--json results.json]

Each run is a process of its own. "Cold" has no compiled kernels on disk, "warm" those of the cold run; both compile the
graphs anew. None of it says how fast a GPU is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.progress import track
from rich.table import Table

import xpu_amp_dynamo
from benchmarks.models import MODELS, Size, build, loss_and_output
from xpu_amp_dynamo.simulator.device_library import cache_folder, load_device_library

# The first step, with compilation, and a later one, in seconds.
Steps = dict[str, float]
RUNS = {"interpreter": "run", "OpenCL, cold": "opencl", "OpenCL, warm": "opencl"}
LATER_STEPS = {"run": 1, "opencl": 5}


def train(name: str, mode: str) -> Steps:
    """Train a model for a few steps in this process and return how long they took."""
    times = []
    with xpu_amp_dynamo.simulated_xpu(mode=mode):
        model, inputs = build(name, Size(), "xpu")
        compiled = torch.compile(model.train(), backend="xpu_amp")
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(1 + LATER_STEPS[mode]):
            started = time.perf_counter()
            loss, _ = loss_and_output(compiled(**inputs))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            times.append(time.perf_counter() - started)
    return {"first": times[0], "later": statistics.median(times[1:])}


def measure(name: str) -> dict[str, Steps]:
    """Return the times of a model by the name of the run."""
    with tempfile.TemporaryDirectory() as folder:
        _link_all_but_kernels(Path(folder) / "xpu_amp_dynamo")
        return {run: _in_a_process(name, mode, folder) for run, mode in RUNS.items()}


def _link_all_but_kernels(folder: Path) -> None:
    """Make a folder with the compiler and the device library of this user's, and no kernels; locks are no links."""
    folder.mkdir()
    for entry in cache_folder().iterdir():
        if entry.name != "kernels" and entry.suffix != ".lock":
            (folder / entry.name).symlink_to(entry)


def _in_a_process(name: str, mode: str, folder: str) -> Steps:
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "XDG_CACHE_HOME": folder, "TORCHINDUCTOR_CACHE_DIR": compiled}
        command = [sys.executable, "-m", "benchmarks.simulator_modes", "--train", name, mode]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table_of(results: Mapping[str, Mapping[str, Steps]]) -> Table:
    """Tabulate the seconds of a step."""
    table = Table("", *(f"{run}: first" if first else "later" for run in RUNS for first in (True, False)))
    table.title = "seconds of a training step on the simulated Max 1550"
    for name, runs in results.items():
        table.add_row(name, *(f"{seconds:.3g}" for run in RUNS for seconds in runs[run].values()))
    return table


def main() -> None:
    """Measure every model and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the times to")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--train", nargs=2, metavar=("MODEL", "MODE"), help="train in this process and print the times")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if arguments.train:
        sys.stdout.write(json.dumps(train(*arguments.train)) + "\n")
        return
    console = Console(width=130)
    load_device_library()  # which may have to be built
    results = {name: measure(name) for name in track(arguments.models, description="training", console=console)}
    console.print(table_of(results))
    if arguments.json:
        arguments.json.write_text(json.dumps({"torch": torch.__version__, "seconds": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
