"""Runs one model in several ways: by the backend, by stock autocast, in float32, all compiled by Inductor."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from xpu_amp_dynamo.command_line.model_source import Source
from xpu_amp_dynamo.environment_options import parse_with_environment
from xpu_amp_dynamo.explanation.relative_error import largest_relative_error
from xpu_amp_dynamo.runtime.installation import keeping_installed_policy, uninstall
from xpu_amp_dynamo.simulator.ways import WAYS
from xpu_amp_dynamo.tuning.timing import interleaved_medians, keep_freed_memory, synchronize

OURS = WAYS[0]


@dataclass(frozen=True)
class Times:
    """How long a model takes.

    Args:
        medians: seconds of a call, by way.
        first_calls: seconds of the first call, which compiles, by way.
        errors: how far the outputs are from those in float32, relative to these, by way.
    """

    medians: dict[str, float]
    first_calls: dict[str, float]
    errors: dict[str, float]

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as long as ours each other way takes."""
        return {way: seconds / self.medians[OURS] for way, seconds in self.medians.items() if way != OURS}


def compare_ways(
    source: Source, device: str, options: Mapping[str, Any], *, train: bool, rounds: int, warmup: int = 3
) -> Times:
    """Time a model in all ways, interleaved.

    Args:
        source: the model and its arguments, on the device.
        device: its device type.
        options: options of the backend; stock autocast runs in their dtype too.
        train: whether to run the backward too.
        rounds: how often each way is timed.
        warmup: how often each runs before, besides the first call.
    """
    torch.compiler.reset()
    keep_freed_memory()
    first_calls: dict[str, float] = {}
    outputs: dict[str, Any] = {}
    with _stock_kernels(device):
        calls = {way: _call(way, source, device, options, train) for way in WAYS}
        for way, call in calls.items():
            started = time.perf_counter()
            outputs[way] = call()
            synchronize(device)
            first_calls[way] = time.perf_counter() - started
        medians = interleaved_medians(calls, device=device, rounds=rounds, warmup=warmup)
    errors = {way: largest_relative_error(outputs[way], outputs["float32"]) for way in WAYS[:-1]}
    return Times(medians, first_calls, errors)


def _call(way: str, source: Source, device: str, options: Mapping[str, Any], train: bool) -> Callable[[], object]:
    """Return one call of a model, compiled one way."""
    dtype = parse_with_environment(options).dtype
    if way == OURS:
        compiled = torch.compile(source.model, backend="xpu_amp", options=dict(options))
    else:
        compiled = torch.compile(source.model)

    def call() -> object:
        stock = torch.autocast(device, dtype) if way == "stock autocast" else contextlib.nullcontext()
        return source.step(compiled, train, stock)

    return call


@contextlib.contextmanager
def _stock_kernels(device: str) -> Iterator[None]:
    """Give regions of ``torch.autocast`` PyTorch's own kernels, whatever policy is installed."""
    with keeping_installed_policy(device):
        uninstall(device)
        yield
