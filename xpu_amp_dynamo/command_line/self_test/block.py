"""A transformer layer forward and backward on the device, against float32 on the CPU."""

from __future__ import annotations

import contextlib
import copy

import torch

import xpu_amp_dynamo
from xpu_amp_dynamo.command_line.model_source import Source
from xpu_amp_dynamo.command_line.self_test import models
from xpu_amp_dynamo.command_line.self_test.result import Result, WrongResult, attempt, require_close
from xpu_amp_dynamo.explanation.relative_error import relative_error

GROUP = "transformer block"
# Of bfloat16 through a dozen ops; gradients sum up over more.
BOUND = 5e-2
WAYS = {
    "eager in a region": (False, True),
    "compiled in a region": (True, True),
    "compiled without a region": (True, False),
}
Values = dict[str, torch.Tensor]


def check_block(way: str, device: str) -> list[Result]:
    """Run the layer forward and backward in one of ``WAYS``."""
    compiled, region = WAYS[way]
    return [attempt(GROUP, way, lambda: _check(device, compiled=compiled, region=region))]


def _check(device: str, *, compiled: bool, region: bool) -> float:
    """Return the largest error of output and gradients.

    Raises:
        WrongResult: one is too large, the output has another dtype, or the backend lowered nothing.
    """
    source = models.block()
    wanted = _values(source, "cpu", compiled=False, region=False)
    with xpu_amp_dynamo.record_lowerings() as reports:
        found = _values(source, device, compiled=compiled, region=region)
    if compiled and not any(report.ops["lower_precision"] for report in reports):
        raise WrongResult("the backend was given no op to run in lower precision")
    if not region and found["output"].dtype is not torch.float32:
        raise WrongResult(f"the output is {found['output'].dtype}, in the float32 program it is torch.float32")
    errors = {name: relative_error(found[name], wanted[name]) for name in wanted}
    worst = max(errors, key=lambda name: errors[name])
    try:
        return require_close(errors[worst], BOUND)
    except WrongResult as wrong:
        raise WrongResult(f"{worst}: {wrong}", wrong.error) from None


def _values(source: Source, device: str, *, compiled: bool, region: bool) -> Values:
    """Return output and gradients of a copy of the layer on a device."""
    torch.compiler.reset()
    layer = copy.deepcopy(source.model).to(device)
    run = torch.compile(layer, backend="xpu_amp") if compiled else layer
    x = source.args[0].to(device, copy=True).requires_grad_()
    around = xpu_amp_dynamo.autocast(device) if region else contextlib.nullcontext()
    with around:
        output = run(x)
    output.float().square().mean().backward()
    gradients = {name: weight.grad for name, weight in layer.named_parameters() if weight.grad is not None}
    return {"output": output, "input's gradient": _present(x.grad), **gradients}


def _present(gradient: torch.Tensor | None) -> torch.Tensor:
    if gradient is None:
        raise WrongResult("the input got no gradient")
    return gradient
