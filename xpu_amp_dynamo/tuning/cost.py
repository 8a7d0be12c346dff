"""What a call of a model costs: bytes that Inductor's kernels move, or seconds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol

import torch

from xpu_amp_dynamo.compat.autocast import disabling_autocast
from xpu_amp_dynamo.compat.pytree import leaves_of
from xpu_amp_dynamo.explanation.unchanged import leaving_unchanged
from xpu_amp_dynamo.inductor.settings import without_caches
from xpu_amp_dynamo.simulator.kernel_report import KernelReport
from xpu_amp_dynamo.simulator.xpu_kernels import run_backward, xpu_kernels
from xpu_amp_dynamo.tuning.measure import Call, Options
from xpu_amp_dynamo.tuning.timing import interleaved_medians

COSTS = ("bytes", "time")
# What has to be saved: fewer bytes are not worth a pattern, and times of the same code differ by as much.
BYTES_WORTH_IT = 0.001
TIMING_NOISE = 0.02


class CostMeter(Protocol):
    """Measures what one call costs with given options of the backend."""

    def cost(self, options: Options) -> float:
        """Return bytes or seconds."""

    def saves(self, cost: float, than: float) -> bool:
        """Tell whether a cost is below another one by what is worth it."""


class CountedBytes:
    """Bytes that kernels read and write by Inductor's own account; nothing is run for a model on the CPU.

    That is taken to a simulated XPU. A model on an XPU or another GPU is compiled for that and called once.

    Args:
        model: the model, not compiled.
        call: what it is called with.
        train: whether the backward runs too.
    """

    def __init__(self, model: torch.nn.Module, call: Call, train: bool) -> None:
        self.model, self.call, self.train = model, call, train

    def cost(self, options: Options) -> float:
        """Count the bytes with given options."""
        if device_type_of(self.model, self.call) == "cpu":
            call = self.call.copy()
            report = xpu_kernels(self.model, *call.args, kwargs=call.kwargs, options=options, train=self.train)
        else:
            report = self._report_of_a_call(options)
        return report.bytes_moved

    def _report_of_a_call(self, options: Options) -> KernelReport:
        from xpu_amp_dynamo.simulator.record_launches import record_launches

        report = KernelReport("xpu_amp")
        with leaving_unchanged(self.model), without_caches(), record_launches(report):
            torch.compiler.reset()
            compiled_step(self.model, self.call, self.train, options)()
            torch.compiler.reset()
        return report

    def saves(self, cost: float, than: float) -> bool:
        """Tell whether fewer bytes are moved, by a thousandth at least."""
        return cost < than * (1 - BYTES_WORTH_IT)


class MeasuredTime:
    """Seconds of a call on the device where the model is, measured in turns with the options of the start.

    Args:
        model: the model, not compiled.
        call: what it is called with.
        train: whether the backward runs too.
        start: the options that the search starts from.
    """

    def __init__(self, model: torch.nn.Module, call: Call, train: bool, start: Options) -> None:
        self.model, self.call, self.train, self.start = model, call, train, start
        self.seconds = 0.0

    def cost(self, options: Options) -> float:
        """Time a call with given options. Drift of the machine is taken out by that of the start's own time."""
        torch.compiler.reset()
        both = {"start": self.start, "options": options}
        steps = {name: compiled_step(self.model, self.call, self.train, each) for name, each in both.items()}
        with leaving_unchanged(self.model):
            medians = interleaved_medians(steps, device=device_type_of(self.model, self.call))
        torch.compiler.reset()
        self.seconds = self.seconds or medians["start"]
        return self.seconds * medians["options"] / medians["start"]

    def saves(self, cost: float, than: float) -> bool:
        """Tell whether a time is shorter by more than times of the same code differ."""
        return cost < than * (1 - TIMING_NOISE)


def compiled_step(model: torch.nn.Module, call: Call, train: bool, options: Options) -> Callable[[], None]:
    """Return a function that calls a model, compiled with options, and runs its backward for training."""
    compiled: Any = torch.compile(model, backend="xpu_amp", options=dict(options))
    call = call.copy()

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with disabling_autocast(), torch.set_grad_enabled(train):
            output = compiled(*call.args, **call.kwargs)
            if train:
                run_backward(output)

    return step


def device_type_of(model: torch.nn.Module, call: Call) -> str:
    """Return the device type that a model and what it is called with are on."""
    tensors = itertools.chain(model.parameters(), model.buffers(), leaves_of((call.args, dict(call.kwargs))))
    return next((t.device.type for t in tensors if isinstance(t, torch.Tensor)), "cpu")
