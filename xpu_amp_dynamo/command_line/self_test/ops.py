"""Runs the samples on the device inside a region, eager and compiled, against float64 on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

import xpu_amp_dynamo
from xpu_amp_dynamo.command_line.self_test.result import Result, WrongResult, attempt, require_close
from xpu_amp_dynamo.command_line.self_test.samples import FLOAT32, FOLLOW, LOWER, PROMOTE, Sample
from xpu_amp_dynamo.explanation.relative_error import relative_error

Inputs = list[torch.Tensor]
Outputs = list[torch.Tensor]
# The rounding of inputs and of the result, a few times over.
BOUNDS = {torch.bfloat16: 2e-2, torch.float16: 4e-3, torch.float32: 1e-4, torch.complex64: 1e-4}


def check_eager(samples: Sequence[Sample], device: str, dtype: torch.dtype) -> list[Result]:
    """Run each sample in eager code."""
    group = f"ops, eager, {_name(dtype)}"

    def check(sample: Sample) -> float:
        inputs = inputs_of(sample, dtype)
        with torch.no_grad(), xpu_amp_dynamo.autocast(device, dtype):
            found = sample.function(*_on(device, inputs))
        return compare(sample, inputs, found, device, dtype)

    return [attempt(group, sample.name, functools.partial(check, sample)) for sample in samples]


def check_compiled(samples: Sequence[Sample], device: str, dtype: torch.dtype) -> list[Result]:
    """Run samples in one compiled function, each in one of its own where that raises, so that one does not hide all."""
    group = f"ops, compiled, {_name(dtype)}"
    inputs = [inputs_of(sample, dtype) for sample in samples]
    try:
        outputs = _compiled(samples, inputs, device, dtype)
    except Exception:  # told by whichever of the samples raises alone, or here if none does
        if len(samples) == 1:
            return [attempt(group, samples[0].name, lambda: _alone(samples[0], device, dtype))]
        return [result for sample in samples for result in check_compiled([sample], device, dtype)]
    return [
        attempt(group, sample.name, functools.partial(compare, sample, given, found, device, dtype))
        for sample, given, found in zip(samples, inputs, outputs, strict=True)
    ]


def _alone(sample: Sample, device: str, dtype: torch.dtype) -> float:
    """Run one sample in a compiled function of its own."""
    inputs = inputs_of(sample, dtype)
    return compare(sample, inputs, _compiled([sample], [inputs], device, dtype)[0], device, dtype)


def _compiled(samples: Sequence[Sample], inputs: Sequence[Inputs], device: str, dtype: torch.dtype) -> Outputs:
    """Run samples in one compiled function inside a region."""
    torch.compiler.reset()
    functions: list[Callable[..., torch.Tensor]] = [sample.function for sample in samples]

    def program(all_inputs: list[Inputs]) -> Outputs:
        return [function(*given) for function, given in zip(functions, all_inputs, strict=True)]

    compiled = torch.compile(program, backend="xpu_amp", dynamic=False, fullgraph=True)
    with torch.no_grad(), xpu_amp_dynamo.autocast(device, dtype):
        return compiled([_on(device, given) for given in inputs])


def inputs_of(sample: Sample, dtype: torch.dtype) -> Inputs:
    """Return what a sample is called with, on the CPU: the mixtures of dtypes that a region produces."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(size, generator=generator) for size in sample.sizes]
    if sample.category == LOWER:
        return tensors
    if sample.category in (PROMOTE, FOLLOW):
        return [tensors[0].to(dtype), *tensors[1:]]
    return [tensor.to(dtype) for tensor in tensors]


def compare(sample: Sample, inputs: Inputs, found: torch.Tensor, device: str, dtype: torch.dtype) -> float:
    """Return the error of a result against float64 on the CPU.

    Raises:
        WrongResult: its dtype is not the policy's, it is elsewhere, or its values are too far off.
    """
    wanted = sample.function(*(tensor.double() for tensor in inputs))
    expected = torch.float32 if sample.category in (FLOAT32, PROMOTE) else dtype
    expected = torch.complex64 if wanted.is_complex() else expected
    if found.dtype is not expected or found.device.type != device or found.shape != wanted.shape:
        raise WrongResult(
            f"got {_name(found.dtype)} of shape {tuple(found.shape)} on {found.device.type}, and {sample.name} is in "
            f"the list {sample.category!r}: {_name(expected)} of shape {tuple(wanted.shape)} on {device}"
        )
    return require_close(relative_error(found, wanted), BOUNDS[expected])


def _on(device: str, inputs: Inputs) -> Inputs:
    return [tensor.to(device) for tensor in inputs]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
