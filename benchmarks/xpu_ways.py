"""The ways to compile a model for a simulated XPU that the benchmarks of kernels compare, and what each generates.

``"stock, frozen"`` is stock autocast with Inductor's ``freezing``, the peer of cached weights: it casts and rearranges
weights while compiling, after which none may change, and there is no training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch._inductor.config

import xpu_amp_dynamo
from benchmarks.models import Inputs, loss_and_output
from benchmarks.weight_traffic import WeightTraffic, record_weight_traffic
from xpu_amp_dynamo.simulator.kernel_report import KernelReport
from xpu_amp_dynamo.simulator.xpu_kernels import copy_to_xpu, stock_autocast

OURS, STOCK, FLOAT32, FROZEN = "xpu_amp", "stock autocast", "float32", "stock, frozen"


@dataclass
class Generated:
    """What one way generates for a model: all kernels, and those of them that only prepare weights."""

    kernels: KernelReport
    traffic: WeightTraffic


def region_of(way: str) -> AbstractContextManager[Any]:
    """Return the autocast region around calls of a model that was compiled in a way."""
    if way == OURS:
        return xpu_amp_dynamo.autocast("xpu")
    return contextlib.nullcontext() if way == FLOAT32 else stock_autocast(torch.bfloat16)


def compile_for(way: str, model: torch.nn.Module, options: Mapping[str, Any]) -> Any:
    """Compile a model in a way.

    Args:
        way: one of the four.
        model: a model on the simulated XPU.
        options: those of our backend.
    """
    return torch.compile(model, backend="xpu_amp", options=dict(options)) if way == OURS else torch.compile(model)


@contextlib.contextmanager
def on_simulated_xpu(model: torch.nn.Module, inputs: Inputs) -> Iterator[tuple[torch.nn.Module, Inputs]]:
    """Copy a model and its inputs from the CPU to a simulated XPU that runs no kernels, and yield the copies."""
    with xpu_amp_dynamo.simulated_xpu(mode="inspect"):
        yield copy_to_xpu(model), {name: tensor.to("xpu") for name, tensor in inputs.items()}


def generate(way: str, model: torch.nn.Module, inputs: Inputs, options: Mapping[str, Any], train: bool) -> Generated:
    """Compile a model in one way and return what was generated.

    Args:
        way: one of the four.
        model: a model on the simulated XPU.
        inputs: keyword arguments of a call.
        options: those of our backend.
        train: compile the backward too.
    """
    torch._dynamo.reset()
    result = Generated(KernelReport(way), WeightTraffic())
    with frozen(way == FROZEN), recording(result):
        compiled = compile_for(way, model, options)
        with torch.set_grad_enabled(train), region_of(way):
            loss, _ = loss_and_output(compiled(**inputs))
        if train:
            loss.backward()
    return result


@contextlib.contextmanager
def frozen(on: bool) -> Iterator[None]:
    """Have Inductor freeze weights, if ``on``."""
    with torch._inductor.config.patch(freezing=on), torch.library._scoped_library("mkldnn", "IMPL") as library:
        # What frozen convolutions add to in place; torch 2.13.0 does not know what it returns for no values.
        library.impl("_convolution_pointwise_.binary", lambda other, *args: other, "Meta")
        yield


@contextlib.contextmanager
def recording(result: Generated) -> Iterator[None]:
    """Add to a result what is generated, with the bytes of constants, which Inductor does not count."""
    # Nothing of Inductor's schedule may be imported before the simulated XPU is on.
    from torch._inductor.scheduler import BaseSchedulerNode

    from xpu_amp_dynamo.simulator.record_launches import record_launches

    name = "get_read_write_buffer_accesses"
    count = getattr(BaseSchedulerNode, name)
    with (
        record_launches(result.kernels),
        record_weight_traffic(result.traffic),
        mock.patch.object(BaseSchedulerNode, name, _counting_constants(count)),
    ):
        yield


def _counting_constants(count: Any) -> Any:
    """Return a count of bytes that takes constants for inputs of the graph."""
    from torch._inductor import ir
    from torch._inductor.virtualized import V

    def buffer_of(name: str, value: torch.Tensor) -> ir.ConstantBuffer:
        layout = ir.FixedLayout(value.device, value.dtype, list(value.size()), list(value.stride()))
        return ir.ConstantBuffer(name=name, layout=layout)

    def count_all(node: Any, include_reads: bool, include_writes: bool) -> dict[str, int]:
        constants = {name: buffer_of(name, value) for name, value in V.graph.constants.items()}
        with mock.patch.dict(V.graph.graph_inputs, constants):
            return count(node, include_reads, include_writes)

    return count_all
