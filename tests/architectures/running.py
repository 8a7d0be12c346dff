"""Runs a model in every way that the sweep compares, and keeps all that comes out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch._dynamo.utils import counters

# Seconds of one core that stock Dynamo may take for one model; the sweep compiles each four times or more.
BUDGET = 6.0
Inputs = Mapping[str, Any]


class Unusable(Exception):
    """A library or stock torch cannot build or run an architecture; says why."""


class Outcome(NamedTuple):
    """What one run gave.

    Args:
        tensors: outputs, and gradients of a training step, by their place.
        warnings: what it warned of.
        breaks: graph breaks.
        graphs: graphs that were compiled.
    """

    tensors: dict[str, torch.Tensor]
    warnings: set[str]
    breaks: int
    graphs: int


def tensors_of(output: Any, place: str = "output") -> dict[str, torch.Tensor]:
    """Return the tensors in what a model returned, by where they are; caches and the like are not looked into."""
    if isinstance(output, torch.Tensor):
        return {place: output}
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(output, Mapping):
        items = list(output.items())
    elif isinstance(output, (list, tuple)):
        items = list(enumerate(output))
    return {k: tensor for name, item in items for k, tensor in tensors_of(item, f"{place}.{name}").items()}


def run(model: torch.nn.Module, inputs: Inputs, call: Callable[..., Any] | None = None, train: bool = False) -> Outcome:
    """Run a model on copies of inputs, with a fixed seed, and put its buffers back.

    Args:
        model: the model.
        inputs: keyword arguments of its forward.
        call: what to call in its place, such as the model compiled.
        train: also run the backward of the outputs' squares; without it there is no autograd.
    """
    counters.clear()
    call = model if call is None else call
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    copies = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
    model.train(train).zero_grad(set_to_none=True)
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught, torch.set_grad_enabled(train):
        warnings.simplefilter("always")
        found = tensors_of(call(**copies))
        if train:
            backward(found)
    gradients = {f"gradient.{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    kept = {place: tensor.detach().clone() for place, tensor in {**found, **gradients}.items()}
    restore(model, buffers)
    messages = {str(warning.message) for warning in caught}
    return Outcome(kept, messages, sum(counters["graph_break"].values()), counters["stats"]["unique_graphs"])


def backward(outputs: dict[str, torch.Tensor]) -> None:
    """Run the backward of the mean squares of all outputs that have a gradient."""
    losses = [t.float().square().mean() for t in outputs.values() if t.requires_grad]
    if not losses:
        raise Unusable("no output has a gradient")
    torch.stack(losses).sum().backward()


def restore(model: torch.nn.Module, buffers: dict[str, torch.Tensor]) -> None:
    """Write values back to buffers that a run changed."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name in buffers and buffer.shape == buffers[name].shape and not torch.equal(buffer, buffers[name]):
                buffer.copy_(buffers[name])


def run_compiled(model: torch.nn.Module, inputs: Inputs, backend: str, train: bool = False, **options: Any) -> Outcome:
    """Run a model compiled afresh."""
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, options=options or None)
    return run(model, inputs, compiled, train)


def suitable_inputs(model: torch.nn.Module, choices: Sequence[Inputs]) -> Inputs:
    """Return the first of several sets of inputs that a model takes.

    Raises:
        Unusable: it takes none of them; names the first error.
    """
    errors = []
    for inputs in choices:
        try:
            found = run(model, inputs).tensors
        except Exception as error:
            errors.append(error)
            continue
        if any(tensor.is_floating_point() for tensor in found.values()):
            return inputs
    raise Unusable(f"not in eager mode: {summary(errors[0])}" if errors else "it returns no floats")


def stock_outcome(model: torch.nn.Module, inputs: Inputs, reference: Outcome, train: bool = False) -> Outcome:
    """Return what stock Dynamo makes of a model.

    Raises:
        Unusable: it cannot run it, needs too long, or gives something else than eager mode.
    """
    started = time.process_time()
    try:
        stock = run_compiled(model, inputs, "eager", train)
    except Exception as error:
        raise Unusable(f"not by stock Dynamo: {summary(error)}") from error
    seconds = time.process_time() - started
    if seconds > BUDGET:
        raise Unusable(f"stock Dynamo takes {seconds:.0f} seconds")
    if differences(stock, reference):
        raise Unusable("stock Dynamo gives something else than eager mode, or it is random")
    return stock


def differences(actual: Outcome, expected: Outcome, exact: bool = True) -> list[str]:
    """Say where two outcomes differ: dtypes, shapes and, if exact, bits, else only what became infinite or NaN."""
    if actual.tensors.keys() != expected.tensors.keys():
        return [f"tensors at {sorted(actual.tensors)} in place of {sorted(expected.tensors)}"]
    pairs = {place: (actual.tensors[place], tensor) for place, tensor in expected.tensors.items()}
    return [f"{place}: {text}" for place, (one, other) in pairs.items() if (text := difference(one, other, exact))]


def difference(actual: torch.Tensor, expected: torch.Tensor, exact: bool) -> str:
    """Say how two tensors differ; nothing if they do not."""
    if actual.dtype is not expected.dtype or actual.shape != expected.shape:
        described = [f"{tensor.dtype} {list(tensor.shape)}" for tensor in (actual, expected)]
        return f"{described[0]} in place of {described[1]}"
    if not expected.is_floating_point():
        return "other values" if exact and not torch.equal(actual, expected) else ""
    if not torch.equal(actual.isfinite() | ~expected.isfinite(), torch.ones_like(expected, dtype=torch.bool)):
        return f"{int((~actual.isfinite() & expected.isfinite()).sum())} of {actual.numel()} became infinite or NaN"
    if exact and not torch.equal(actual.nan_to_num(), expected.nan_to_num()):
        off = (actual.double() - expected.double()).abs().nan_to_num()
        return f"{int((off > 0).sum())} of {actual.numel()} differ, by up to {off.max():.3g}"
    return ""


def relative_error(actual: Outcome, expected: Outcome) -> float:
    """Return the norm of the difference over the norm of what is expected, of all floats that are finite there."""
    places = [place for place, tensor in expected.tensors.items() if tensor.is_floating_point()]
    one, other = [torch.cat([o.tensors[p].double().flatten() for p in places]) for o in (actual, expected)]
    finite = other.isfinite()
    return float((one - other)[finite].norm() / other[finite].norm().clamp_min(1e-12))


def summary(error: BaseException) -> str:
    """Return an error's innermost cause in a line."""
    while cause := getattr(error, "inner_exception", None) or error.__cause__:
        error = cause
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
