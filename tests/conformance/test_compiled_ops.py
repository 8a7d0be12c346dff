"""Every op of PyTorch's OpInfo database through ``torch.compile``: in a region, without one, and behind a product."""

from __future__ import annotations

import dataclasses
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing._internal import common_methods_invocations

import xpu_amp_dynamo
from tests.conformance import compiled_exceptions, known_exceptions
from tests.conformance.outcomes import (
    Outcome,
    assert_equal,
    assert_near,
    compiled,
    dense,
    outcome_of,
    outcome_or_none,
)
from tests.support.samples import OPS, Call, a_few_slowly, calls_of, first_lower

NAMES = sorted(
    OPS.keys() - known_exceptions.UNINITIALISED - known_exceptions.NOT_REPEATABLE - compiled_exceptions.ONLY_ON_CUDA
)
LOWER = (torch.bfloat16, torch.float16)
# Relative errors of norms: a rounding to bfloat16 errs by up to 2**-8, to float16 by 2**-11; an op and its gradient
# see a few.
BOUNDS = {torch.bfloat16: 0.02, torch.float16: 0.004}
# Half of float16's range is left to the intermediate values of an op.
LARGEST = {torch.bfloat16: float("inf"), torch.float16: 30000.0}
# Of gradients; smaller ones lose bits in float16 without loss scaling.
SMALLEST = {torch.bfloat16: 0.0, torch.float16: 1e-3}


@pytest.fixture(autouse=True)
def kernels_exist(request, device):
    """Skip an op without kernels for the device type."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    if device == "cuda" and name in compiled_exceptions.NOT_ON_CUDA:
        pytest.skip(f"{name} has no kernels for CUDA")


@pytest.fixture(autouse=True)
def captured_whole(monkeypatch):
    """Keep graph breaks out of calls: at the seed that OpInfo's wrappers set, at values and sizes read from data."""
    monkeypatch.setattr(common_methods_invocations, "wrapper_set_seed", lambda op, *args, **kwargs: op(*args, **kwargs))
    with torch._dynamo.config.patch(capture_scalar_outputs=True, capture_dynamic_output_shape_ops=True):
        yield


def function_of(op: Callable[..., Any]) -> Callable[..., Any]:
    """Return a Python function that calls an op: Dynamo captures no bare builtin."""

    def function(*args: Any, **kwargs: Any) -> Any:
        return op(*args, **kwargs)

    return function


def first_sample_of(name: str, device: str) -> Call:
    """Return the first sample of an op that can stand behind a product, else the very first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the samples' own
        calls = calls_of(OPS[name], most=8, device=device)
        if not any(map(front_of, calls)):
            calls = calls_of(OPS[name], device=device)
    return prepared(name, next(filter(front_of, calls), calls[0]))


def other_sample_of(name: str, device: str) -> Call:
    """Return a sample of an op from anywhere among them all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the samples' own
        calls = calls_of(OPS[name], device=device)
    return prepared(name, random.Random(name).choice(calls))


def prepared(name: str, call: Call) -> Call:
    """Return a call that Dynamo can capture, with gradients where the op has any."""
    call = dataclasses.replace(call, function=function_of(call.function))
    return with_gradients(call) if OPS[name].supports_autograd else call


def with_gradients(call: Call) -> Call:
    """Return a call that wants gradients of all its inputs, of the first alone where not all can have one, or none."""
    everything = call.mapped(lambda t: t.detach().requires_grad_(is_inexact(t)))
    first = call.mapped(lambda t: t.detach().requires_grad_(is_inexact(t) and t is call.tensors()[0]))
    return next((variant for variant in (everything, first) if outcome_or_none(variant)), call)


def is_inexact(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor holds real or complex numbers."""
    return tensor.is_floating_point() or tensor.is_complex()


def compile_call(call: Call, **options: Any) -> Call:
    """Return a call with its function compiled."""
    return dataclasses.replace(call, function=compiled(call.function, **options))


def compare_in_region(name: str, call: Call, lower: torch.dtype, device: str) -> Outcome | None:
    """Compare a call in a region with itself compiled; return nothing where eager code refuses it."""

    def region() -> torch.autocast:
        return xpu_amp_dynamo.autocast(device, lower)

    expected = outcome_or_none(call, region)
    if expected is None:
        return None
    actual = outcome_of(compile_call(call, device_type=device), region)
    assert_same_bits(name, actual, expected)
    return actual


def compare_alone(name: str, call: Call, lower: torch.dtype, device: str) -> Outcome | None:
    """Compare a float32 call with itself compiled: equal if a region changes nothing, else near."""
    expected = outcome_or_none(call)
    if expected is None:
        return None
    in_region = outcome_or_none(call, lambda: xpu_amp_dynamo.autocast(device, lower))
    actual = outcome_of(compile_call(call, device_type=device, dtype=lower))
    if in_region is not None and is_same(in_region, expected):
        assert_same_bits(name, actual, expected)
    else:
        assert_within_bounds(name, actual, expected, lower)
    return actual


def is_same(left: Outcome, right: Outcome) -> bool:
    """Tell whether two outcomes agree bit for bit."""
    try:
        assert_equal(left, right)
    except AssertionError:
        return False
    return True


def assert_same_bits(name: str, actual: Outcome, expected: Outcome) -> None:
    """Check that two outcomes are equal, or nearly so where Dynamo takes an op apart or kernels use atomics."""
    atomic = compiled_exceptions.ATOMIC_ON_CUDA if any(t.is_cuda for t in expected.tensors) else set()
    if name in compiled_exceptions.TAKEN_APART or name in atomic:
        assert_near(actual, expected, 1e-5, 1e-5)
    else:
        assert_equal(actual, expected)


def assert_within_bounds(name: str, actual: Outcome, expected: Outcome, lower: torch.dtype) -> None:
    """Check that two outcomes are near, as far as the expected values are within a lower dtype's range."""
    bound = compiled_exceptions.WIDE_BOUNDS.get(name, BOUNDS[lower])
    large, small = largest_of(expected.tensors), [largest_of([t]) for t in expected.gradients if t is not None]
    gradient_bound = 2 * bound if min(small, default=1.0) >= SMALLEST[lower] else float("inf")
    if large > LARGEST[lower]:
        bound = gradient_bound = float("inf")
    assert_near(actual, expected, bound, gradient_bound)


def largest_of(tensors: list[torch.Tensor]) -> float:
    """Return the largest finite magnitude in tensors of real and complex numbers."""
    values = [dense(t).abs() for t in tensors if is_inexact(t)]
    return max([0.0, *(float(value[value.isfinite()].max()) for value in values if value.isfinite().any())])


def front_of(call: Call) -> tuple[int, int | None] | None:
    """Return where a call's first float32 matrix or vector is: the argument, and the item where that is a list."""
    for index, argument in enumerate(call.args):
        items = list(argument) if isinstance(argument, (list, tuple)) else [argument]
        for position, item in enumerate(items):
            if _can_be_a_product(item):
                return index, None if items[0] is argument else position
    return None


def _can_be_a_product(value: Any) -> bool:
    """Tell whether a value is a dense float32 tensor whose numbers both lower dtypes can hold."""
    if not isinstance(value, torch.Tensor) or value.dtype is not torch.float32 or value.layout is not torch.strided:
        return False
    return bool(value.dim() and value.numel() and value.half().isfinite().all())


def behind_a_product(call: Call, lower: torch.dtype) -> Call | None:
    """Return a call whose first matrix is a product with the identity, exact in lower precision.

    Its values are rounded beforehand, so that float32 and lower precision start from the same ones.
    """
    place = front_of(call)
    if place is None:
        return None
    index, position = place
    front = call.args[index] if position is None else call.args[index][position]
    identity = torch.eye(front.shape[-1], device=front.device)

    def product(tensor: torch.Tensor) -> torch.Tensor:
        return tensor @ identity

    def function(*args: Any, **kwargs: Any) -> Any:
        changed = list(args)
        if position is None:
            changed[index] = product(args[index])
        else:
            changed[index] = [*args[index][:position], product(args[index][position]), *args[index][position + 1 :]]
        return call.function(*changed, **kwargs)

    def rounded(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(lower).float().requires_grad_(tensor.requires_grad) if tensor is front else tensor

    return dataclasses.replace(call.mapped(rounded), function=function)


def compare_behind_a_product(name: str, call: Call, lower: torch.dtype, device: str) -> Outcome | None:
    """Compare a product and an op, a float32 program, with itself compiled: dtypes, strides, values within bounds."""
    program = behind_a_product(call, lower)
    expected = outcome_or_none(program) if program else None
    if program is None or expected is None:
        return None
    actual = outcome_of(compile_call(program, device_type=device, dtype=lower))
    assert_within_bounds(name, actual, expected, lower)
    return actual


def assert_compared(name: str, *outcomes: Outcome | None) -> None:
    """Check that some call ran, and that it went through a lowered graph unless Dynamo captures no such call."""
    compared = [outcome for outcome in outcomes if outcome is not None]
    assert compared, "nothing was compared"
    graphs = sum(outcome.graphs for outcome in compared)
    assert (graphs == 0) == (name in compiled_exceptions.NOT_CAPTURED), f"{graphs} graphs were captured"


@pytest.mark.parametrize("name", sorted(set(NAMES) - compiled_exceptions.REFUSED_IN_REGION))
def test_in_a_region(name, device):
    assert_compared(name, compare_in_region(name, first_sample_of(name, device), torch.bfloat16, device))


@pytest.mark.parametrize("name", NAMES)
def test_alone(name, device):
    assert_compared(name, compare_alone(name, first_sample_of(name, device), torch.bfloat16, device))


@pytest.mark.parametrize(
    "lower",
    [pytest.param(torch.bfloat16, id="bfloat16"), pytest.param(torch.float16, id="float16", marks=pytest.mark.sweep)],
)
@pytest.mark.parametrize("name", sorted(set(NAMES) - compiled_exceptions.NO_MATRIX))
def test_behind_a_product(name, lower, device):
    outcome = compare_behind_a_product(name, first_sample_of(name, device), lower, device)
    assert outcome is not None, "nothing was compared"
    assert outcome.graphs, "not even the product was captured"


@pytest.mark.parametrize("name", a_few_slowly(set(NAMES) - compiled_exceptions.NO_OTHER_SAMPLES.keys()))
def test_another_sample(name, device):
    call, lower = other_sample_of(name, device), torch.float16
    assert_compared(
        name,
        compare_in_region(name, call, lower, device),
        compare_in_region(name, first_lower(call, lower), lower, device),
        compare_alone(name, call, lower, device),
    )


def test_exceptions_name_ops():
    for key, value in vars(compiled_exceptions).items():
        if key.isupper() and "MODULES" not in key:
            assert set(value) <= OPS.keys(), key
