"""What must hold for every architecture. Each check returns a list of problems, so that one run shows all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

import xpu_amp_dynamo
from tests.architectures.running import (
    Inputs,
    Outcome,
    Unusable,
    differences,
    relative_error,
    run,
    run_compiled,
    stock_outcome,
    suitable_inputs,
    summary,
)

# Relative error of the norm against float32. bfloat16 keeps 8 bits, so one rounding errs by up to 2**-9, about 0.002,
# and tiny models with random weights see some ten in a row. Some amplify errors, or choose experts by them; what eager
# autocast of the same policy errs by is their measure.
FLOOR, OVER_EAGER_REGION = 0.03, 3.0


def region() -> Any:
    """Return a region of the default policy."""
    return xpu_amp_dynamo.autocast("cpu", torch.bfloat16)


class Usable(NamedTuple):
    """A model that eager mode and stock Dynamo run, inputs that suit it, and what both make of these in float32."""

    model: torch.nn.Module
    inputs: Inputs
    reference: Outcome
    stock: Outcome


def usable(model: torch.nn.Module, choices: Sequence[Inputs], train: bool = False) -> Usable:
    """Find inputs that suit a model, and run it in float32.

    Raises:
        Unusable: eager mode or stock Dynamo cannot run it.
    """
    inputs = suitable_inputs(model, choices)
    try:
        reference = run(model, inputs, train=train)
    except Exception as error:
        raise Unusable(f"not in eager mode: {summary(error)}") from error
    return Usable(model, inputs, reference, stock_outcome(model, inputs, reference, train))


def eager_region(model: torch.nn.Module, inputs: Inputs, train: bool = False) -> Outcome | str:
    """Return a model's outcome in an eager region, or how that fails where stock autocast does not.

    Raises:
        Unusable: stock autocast cannot run it either.
    """
    try:
        with region():
            return run(model, inputs, train=train)
    except Exception as error:
        ours = summary(error)
    xpu_amp_dynamo.uninstall("cpu")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            run(model, inputs, train=train)
    except Exception as error:
        raise Unusable(f"not in a region: {ours}; nor in stock autocast: {summary(error)}") from error
    return f"an eager region raises where stock autocast does not: {ours}"


def problems_in_a_region(case: Usable, inner_backend: str, train: bool = False) -> list[str]:
    """Compare a model compiled inside a region with eager code in the same region, bit for bit."""
    model, inputs, _, stock = case
    try:
        eager = eager_region(model, inputs, train)
    except Unusable:
        return []
    if isinstance(eager, str):
        return [eager]
    try:
        with region():
            compiled = run_compiled(model, inputs, "xpu_amp", train, inner_backend=inner_backend)
    except Exception as error:
        return [f"compiled in a region: {summary(error)}"]
    found = [f"in a region: {text}" for text in differences(compiled, eager)]
    return found + beyond_stock(compiled, stock, eager, lambda: stock_in_a_region(model, inputs, train))


def stock_in_a_region(model: torch.nn.Module, inputs: Inputs, train: bool) -> Outcome:
    """Return what stock Dynamo makes of a model in stock autocast."""
    xpu_amp_dynamo.uninstall("cpu")
    with torch.autocast("cpu", torch.bfloat16):
        return run_compiled(model, inputs, "eager", train)


def problems_alone(case: Usable, inner_backend: str) -> list[str]:
    """Compare a model compiled without a region with the float32 program."""
    model, inputs, reference, stock = case
    xpu_amp_dynamo.uninstall("cpu")
    try:
        compiled = run_compiled(model, inputs, "xpu_amp", inner_backend=inner_backend)
    except Exception as error:
        return [f"compiled alone: {summary(error)}"]
    found = [f"alone: {text}" for text in differences(compiled, reference, exact=False)]
    found = found or values_far_off(case, compiled)
    return found + beyond_stock(compiled, stock, reference, lambda: stock)


def values_far_off(case: Usable, compiled: Outcome) -> list[str]:
    """Compare values with float32 ones, by what eager code in a region errs by."""
    model, inputs, reference, _ = case
    error = relative_error(compiled, reference)
    if error <= FLOOR:
        return []
    try:
        eager = eager_region(model, inputs)
    except Unusable:
        eager = ""
    measure = relative_error(eager, reference) if isinstance(eager, Outcome) else 0.0
    within = error <= OVER_EAGER_REGION * measure
    return [] if within else [f"alone: relative error {error:.3g}, in an eager region {measure:.3g}"]


def beyond_stock(compiled: Outcome, stock: Outcome, eager: Outcome, ask: Callable[[], Outcome]) -> list[str]:
    """Say what a compiled model has more of than one that stock Dynamo compiled: graphs, breaks, warnings."""
    found = beyond(compiled, stock, eager)
    return found and beyond(compiled, ask(), eager)


def beyond(compiled: Outcome, stock: Outcome, eager: Outcome) -> list[str]:
    """Say what one outcome has more of than another."""
    counts: Mapping[str, tuple[int, int]] = {
        "graphs": (compiled.graphs, stock.graphs),
        "graph breaks": (compiled.breaks, stock.breaks),
    }
    more = [f"{ours} {name}, stock {theirs}" for name, (ours, theirs) in counts.items() if ours > theirs]
    return more + [f"warns: {text[:300]}" for text in compiled.warnings - stock.warnings - eager.warnings]
