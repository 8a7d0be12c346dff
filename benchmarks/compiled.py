"""Compiled steps on this machine: ours beside stock autocast and float32, all by Inductor, interleaved in one run.

    python -m benchmarks.compiled [--models bert llama] [--json results.json]

Compile times are of compilations, since nothing is read from disk. Where those would take too long, processes with
``--keep-caches --rounds 1`` can compile the models beside each other first; a run with ``--keep-caches`` then gives
everything else.

Every model runs inference, inference with cached weights (there also beside stock autocast with ``freezing``), on
NVIDIA's GPUs inference by CUDA graphs, and a training step, each with the program inside an autocast region, so that
all outputs have the same dtypes. The decode case is a Llama that is given one token.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import xpu_amp_dynamo
from benchmarks.models import MODELS, Inputs, Size, build, loss_and_output
from xpu_amp_dynamo.lowering.pipeline import COMPILED, JOINT
from xpu_amp_dynamo.lowering.run_passes import record_passes
from xpu_amp_dynamo.tuning.timing import interleaved_medians, keep_freed_memory, synchronize

INSIDE_INDUCTOR = {run.__name__ for run in (*JOINT, *COMPILED)}
CONVOLUTIONAL = ("resnet", "autoencoder", "unet")
SIZES = {
    **dict.fromkeys(MODELS, Size(width=256, layers=2, heads=4, batch=4, length=64)),
    **dict.fromkeys(CONVOLUTIONAL, Size(width=64, layers=2, batch=4, length=64)),
}
SIZES_ON_GPUS = {
    **dict.fromkeys(MODELS, Size(width=1024, layers=8, heads=16, batch=8, length=256)),
    **dict.fromkeys(CONVOLUTIONAL, Size(width=256, layers=2, batch=16, length=128)),
}
DECODE = "llama, one token"
DECODE_SIZE = Size(width=2048, layers=4, heads=16, batch=1, length=1)
# How each way compiles, by program: options of torch.compile.
STOCK: dict[str, Any] = {"backend": "inductor"}
OURS: dict[str, Any] = {"backend": "xpu_amp"}
# An option of its own keeps Dynamo from running the code of unfrozen stock here.
FROZEN: dict[str, Any] = {**STOCK, "options": {"freezing": True}}
PEERS = ("stock autocast", "stock, frozen", "float32")
PROGRAMS: dict[str, dict[str, dict[str, Any]]] = {
    "inference": {
        "xpu_amp": {**OURS, "options": {"weights": "recast"}},
        "stock autocast": STOCK,
        "float32": STOCK,
    },
    "inference, cached weights": {
        "xpu_amp": {**OURS, "options": {"weights": "cached"}},
        "stock autocast": STOCK,
        "stock, frozen": FROZEN,
        "float32": STOCK,
    },
    "inference, CUDA graphs": {
        "xpu_amp": {**OURS, "options": {"weights": "cached", "inductor": {"triton.cudagraphs": True}}},
        "stock autocast": {**STOCK, "mode": "reduce-overhead"},
        "float32": {**STOCK, "mode": "reduce-overhead"},
    },
    "training": {"xpu_amp": OURS, "stock autocast": STOCK, "float32": STOCK},
}


def measure(case: str, program: str, device: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return medians of some rounds, seconds of the first call, and on GPUs kernels and their seconds, by way."""
    calls, first = {}, {}
    sizes = SIZES if device == "cpu" else SIZES_ON_GPUS
    seconds_of_ours = 0.0
    torch._dynamo.reset()
    for way, options in PROGRAMS[program].items():
        # Frozen code keeps its weights as constants, and so must not share its model.
        model, inputs = build("llama", DECODE_SIZE, device) if case == DECODE else build(case, sizes[case], device)
        calls[way] = _call(model, inputs, way, options, device, train=program == "training")
        started = time.perf_counter()
        # torch 2.13's Dynamo looks for freezing in the global configuration, not among a compilation's options.
        frozen = torch._inductor.config.patch(freezing=way == "stock, frozen")
        with frozen, record_passes() as runs, xpu_amp_dynamo.record_lowerings() as reports:
            calls[way]()
            synchronize(device)
        first[way] = time.perf_counter() - started
        seconds_of_ours += sum(report.seconds for report in reports)
        seconds_of_ours += sum(run.seconds for run in runs if run.name in INSIDE_INDUCTOR)
    medians = interleaved_medians(calls, device=device, rounds=rounds)
    result = {"median": medians, "first call": first, "passes": {"xpu_amp": seconds_of_ours}}
    if device != "cpu":
        kernels = {way: kernels_of(call, device) for way, call in calls.items()}
        result["kernels"] = {way: len(seconds) for way, seconds in kernels.items()}
        result["kernel seconds"] = {way: sum(seconds) for way, seconds in kernels.items()}
    return result


def _call(
    model: torch.nn.Module, inputs: Inputs, way: str, options: Mapping[str, Any], device: str, train: bool
) -> Callable[[], object]:
    """Return one step of a model, compiled one way."""
    compiled = torch.compile(model, **options)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(train), _region(way, device):
            loss, _ = loss_and_output(compiled(**inputs))
        if train:
            loss.backward()

    return step


def _region(way: str, device: str) -> contextlib.AbstractContextManager[Any]:
    """Return the region around a call; under ours stock kernels stay installed, for the peers' sake."""
    return contextlib.nullcontext() if way == "float32" else torch.autocast(device, torch.bfloat16)


def kernels_of(call: Callable[[], object], device: str) -> list[float]:
    """Return the seconds of each kernel that one call launches on a GPU, copies and fills among them."""
    activity = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}[device]
    with profile(activities=[activity]) as profiler:
        call()
        synchronize(device)
    return [e.time_range.elapsed_us() * 1e-6 for e in profiler.events() if e.device_type != DeviceType.CPU]


def table_of(results: Mapping[str, dict[str, dict[str, float]]], device: str, rounds: int) -> Table:
    """Tabulate medians and ratios; a ratio above 1 means that ours is faster."""
    table = Table(
        "",
        "xpu_amp, ms",
        "stock / ours",
        "frozen / ours",
        "float32 / ours",
        "first call, s, ours / stock",
        "our passes, of it",
        "kernels, ours / stock / float32",
        "their ms",
    )
    table.title = f"compiled steps on {device}, medians of {rounds} interleaved rounds"
    for case, result in results.items():
        medians, first = result["median"], result.get("first call")
        ratios = [f"{medians[way] / medians['xpu_amp']:.2f}" if way in medians else "" for way in PEERS]
        compiling = f"{first['xpu_amp']:.1f} / {first['stock autocast']:.1f}" if first else ""
        passes = f"{result['passes']['xpu_amp'] / first['xpu_amp']:.1%}" if first else ""
        ways = ("xpu_amp", "stock autocast", "float32")
        kernels = " / ".join(str(result["kernels"][way]) for way in ways) if "kernels" in result else ""
        busy = " / ".join(f"{result['kernel seconds'][way] * 1e3:.2f}" for way in ways) if kernels else ""
        table.add_row(case, f"{medians['xpu_amp'] * 1e3:.2f}", *ratios, compiling, passes, kernels, busy)
    return table


def main() -> None:
    """Measure every model and program, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file to write the medians to")
    parser.add_argument("--rounds", type=int, default=31, help="how often each way is timed")
    parser.add_argument("--keep-caches", action="store_true", help="use compiled code that is on disk")
    parser.add_argument("--models", nargs="*", default=[*MODELS, DECODE], choices=[*MODELS, DECODE])
    parser.add_argument("--programs", nargs="*", default=list(PROGRAMS), choices=list(PROGRAMS))
    arguments = parser.parse_args()
    keep_freed_memory()
    transformers.logging.set_verbosity_error()
    torch.compiler.config.force_disable_caches = not arguments.keep_caches
    warnings.filterwarnings("ignore", "dynamo_pgo force disabled")
    device = xpu_amp_dynamo.default_device_type()
    console = Console(width=170)
    for options in (STOCK, OURS):
        # The first compilation of a process loads the compiler, which is no one way's time.
        torch.compile(torch.nn.Linear(8, 8).to(device), **options)(torch.ones(8, 8, device=device))
    programs = [p for p in arguments.programs if device == "cuda" or p != "inference, CUDA graphs"]
    cases = [(m, p) for m in arguments.models for p in programs if m != DECODE or p != "training"]
    machine = {"device": device, "machine": machine_name(device), "threads": torch.get_num_threads()}
    results: dict[str, dict[str, dict[str, float]]] = {}
    for name, program in track(cases, description="measuring", console=console):
        result = results[f"{name}, {program}"] = measure(name, program, device, arguments.rounds)
        if arguments.keep_caches:
            del result["first call"], result["passes"]
        if arguments.json:
            document = {"torch": torch.__version__, **machine, "seconds": results}
            arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    console.print(table_of(results, device, arguments.rounds))


def machine_name(device: str) -> str:
    """Return the name of the processor or of the GPU that ran."""
    if device == "cpu":
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.processor()
    return str(torch.get_device_module(device).get_device_name())


if __name__ == "__main__":
    main()
