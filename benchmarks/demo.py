"""The demo: two real models three ways, as kernels that an Intel GPU would launch and as steps on the device present.

python -m benchmarks.demo
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from rich.console import Console
from rich.table import Table

import xpu_amp_dynamo
from benchmarks.models import Inputs, Size, build, loss_and_output
from xpu_amp_dynamo.errors import SimulatorError
from xpu_amp_dynamo.simulator.kernel_report import readable_bytes
from xpu_amp_dynamo.tuning.timing import interleaved_medians, synchronize

MODELS = {
    "llama": Size(width=256, layers=1, heads=4, batch=4, length=64),
    "unet": Size(width=64, batch=4, length=64),
}
WAYS = ("float32", "stock autocast", "xpu_amp")
OP_LABELS = {
    "lower_precision": "in bfloat16",
    "float32": "in float32",
    "promote": "promoted to the widest",
    "follow": "in the dtype of their input",
    "composite": "cast inside (composites)",
    "untouched": "untouched",
}


# Returns the loss and the output.
Step = Callable[[], tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Way:
    """One way to run a model: its training step, and what the first call of it gave and took."""

    step: Step
    output: torch.Tensor
    compile_seconds: float


class Progress:
    """Says what is done now, a line each, so that it shows in a pipe too."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = time.perf_counter()

    def say(self, text: str) -> None:
        """Print what begins, and after how many seconds."""
        self.console.print(f"[{time.perf_counter() - self._started:4.0f} s] {text}", markup=False, highlight=False)


def make_step(way: str, model: torch.nn.Module, inputs: Inputs, device: str) -> Step:
    """Return a training step, forward and backward, compiled in one of ``WAYS``."""
    compiled = torch.compile(model, backend="xpu_amp" if way == "xpu_amp" else "inductor")

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad(set_to_none=True)
        region = torch.autocast(device, torch.bfloat16) if way == "stock autocast" else contextlib.nullcontext()
        with region:
            loss, output = loss_and_output(compiled(**inputs))
        loss.backward()
        return loss.detach(), output.detach()

    return step


def show_kernels(name: str, size: Size, progress: Progress) -> None:
    """Print what an Intel GPU would launch for one call of a model, where this build of PyTorch can tell."""
    progress.say(f"{name}: generating the kernels of a GPU Max 1550, inference, three ways")
    model, inputs = build(name, size, "cpu")
    try:
        report = xpu_amp_dynamo.xpu_kernels(
            model, kwargs=inputs, options={"weights": "recast"}, beside=["stock autocast", "float32"]
        )
    except SimulatorError as error:
        progress.say(f"{name}: no kernels of an Intel GPU here: {error}")
        return
    reports = {"xpu_amp": report, **report.beside}
    table = Table("", *WAYS, title=f"{name}: what a GPU Max 1550 would launch, by Inductor's account, not timed")
    table.add_row("kernels", *(str(reports[way].triton_launches) for way in WAYS))
    table.add_row("of these only casts", *(str(reports[way].cast_launches) for way in WAYS))
    table.add_row("calls of libraries", *(str(reports[way].extern_calls) for way in WAYS))
    table.add_row("bytes moved", *(readable_bytes(reports[way].bytes_moved) for way in WAYS))
    progress.console.print(table)


def show_steps(name: str, size: Size, device: str, progress: Progress) -> None:
    """Run training steps of one model in every way and print their tables."""
    reports: list[xpu_amp_dynamo.LoweringReport] = []
    ways: dict[str, Way] = {}
    # Once, as it forgets the code of the other ways too, which would be compiled anew to be timed.
    torch._dynamo.reset()
    for way in WAYS:
        progress.say(f"{name}: compiling a training step on {device}, {way}")
        step = make_step(way, *build(name, size, device), device)
        with xpu_amp_dynamo.record_lowerings() as recorded:
            started = time.perf_counter()
            _, output = step()
            synchronize(device)
            ways[way] = Way(step, output, time.perf_counter() - started)
        reports += recorded
    progress.say(f"{name}: timing")
    medians = interleaved_medians({way: ways[way].step for way in WAYS}, device=device, rounds=7, warmup=1)
    progress.console.print(_operations(name, reports, ways["xpu_amp"].compile_seconds))
    progress.console.print(_comparison(name, ways, medians))


def _operations(name: str, reports: list[xpu_amp_dynamo.LoweringReport], compile_seconds: float) -> Table:
    """Tabulate what the policy did with the model's ops."""
    table = Table("what", "number", title=f"{name}: ops of the forward graph under the policy 'xpu'")
    counts = sum((report.ops for report in reports), Counter())
    for key, label in OP_LABELS.items():
        table.add_row(f"ops {label}", str(counts[key]))
    table.add_row("casts in the graph", str(sum(report.casts for report in reports)))
    seconds = sum(report.seconds for report in reports)
    table.add_row("lowering, of the compile time", f"{seconds:.2f} s, {seconds / compile_seconds:.1%}")
    return table


def _comparison(name: str, ways: dict[str, Way], medians: dict[str, float]) -> Table:
    """Tabulate errors and times of all ways side by side."""
    table = Table("", *WAYS, title=f"{name}: training step, all compiled with Inductor, medians of one run")
    reference = ways["float32"].output.float()
    errors = {way: float((ways[way].output.float() - reference).abs().max()) for way in WAYS}
    scale = float(reference.abs().max())
    table.add_row("largest output error", *(f"{errors[way]:.4f}" for way in WAYS))
    table.add_row("relative to the largest output", *(f"{errors[way] / scale:.2%}" for way in WAYS))
    table.add_row("output dtype", *(str(ways[way].output.dtype).removeprefix("torch.") for way in WAYS))
    table.add_row("step time", *(f"{medians[way] * 1e3:.1f} ms" for way in WAYS))
    table.add_row("relative to float32", *(f"{medians[way] / medians['float32']:.2f}" for way in WAYS))
    table.add_row("compile time", *(f"{ways[way].compile_seconds:.1f} s" for way in WAYS))
    return table


def main() -> None:
    """Show every model of the demo: the kernels of an Intel GPU, and steps on the best device present."""
    transformers.logging.set_verbosity_error()
    logging.getLogger("torch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*dynamo_pgo force disabled")
    console = Console()
    device = xpu_amp_dynamo.default_device_type()
    threads = f", {torch.get_num_threads()} threads" if device == "cpu" else ""
    console.print(f"xpu_amp_dynamo on torch {torch.__version__}, device [bold]{device}[/bold]{threads}")
    console.print("This takes about three minutes on two cores, most of them Inductor's compilations.")
    if device == "cpu":
        console.print("Times are of this CPU, where bfloat16 is slow unless it has it; they say nothing about a GPU.")
    # Compile times are of compilations, not of reading what an earlier run left on disk.
    torch.compiler.config.force_disable_caches = True
    progress = Progress(console)
    for name, size in MODELS.items():
        show_kernels(name, size, progress)
        show_steps(name, size, device, progress)
    progress.say("done")


if __name__ == "__main__":
    main()
