"""Random programs in regions, through Inductor: near float32, and what the CPU's eager region makes of them."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, note, settings

import xpu_amp_dynamo
from tests.programs.observation import Observation, allowed_errors, assert_observed_alike, floats, norm, observe
from tests.programs.random_float32_programs import IN_REGIONS, Float32Program, float32_programs, inputs
from tests.programs.stock_compilation import stock_conforms

# `make fuzz` sets the number, and draws other programs in each run.
NUMBER = os.environ.get("RANDOM_PROGRAMS")
PROGRAMS = settings(
    derandomize=NUMBER is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=[Phase.generate, *([Phase.shrink] if NUMBER else [])],
)


def default_device(device: str) -> contextlib.AbstractContextManager[Any]:
    """Let programs make tensors on a device without a word about it."""
    return torch.device(device) if device != "cpu" else contextlib.nullcontext()


def observe_in_a_region(function: Callable[..., Any], lower: torch.dtype, device: str) -> Observation:
    """Run a program in a region of a device, backward outside of it."""

    def run(*arguments: Any) -> Any:
        with torch.autocast(device, lower):
            return function(*arguments)

    with default_device(device):
        return observe(run, inputs(device))


def assert_near(actual: Observation, exact: Observation, allowed: list[float]) -> None:
    """Check the values and gradients of a run against those of float32."""
    for index, (one, other, most) in enumerate(zip(floats(actual), floats(exact), allowed, strict=True)):
        error = norm(one - other)
        assert error <= most, f"value {index} is {error:.3g} off float32, allowed {most:.3g}"


@pytest.mark.slow
@pytest.mark.timeout(0 if NUMBER else 1800)
@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_random_programs_in_regions(device, lower):
    compared, wanted = 0, int(NUMBER or (60 if device == "xpu" else 20)) // 2

    @settings(PROGRAMS, max_examples=wanted)
    @given(float32_programs(most=5, breaks=False, expressions=IN_REGIONS))
    def compare(program: Float32Program) -> None:
        nonlocal compared
        note(str(program))
        torch._dynamo.reset()
        for device_type in {"cpu", device}:
            xpu_amp_dynamo.install(device_type=device_type)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # float16 without a scaler
            try:
                exact = observe(program.function(), inputs())
                expected = observe_in_a_region(program.function(), lower, "cpu")
            except (RuntimeError, TypeError):
                assume(False)  # what eager code refuses, such as a product of two dtypes
            allowed, largest = allowed_errors(program.function(), inputs(), exact)
            # Some kernels overflow inside, such as matrix_exp's: then eager code does too.
            overflows = largest >= 30000 or not all(value.isfinite().all() for value in floats(expected))
            assume(lower is torch.bfloat16 or not overflows)
            compiled = torch.compile(program.function(compiled=True), backend="xpu_amp", dynamic=False)
            try:
                actual = observe_in_a_region(compiled, lower, device)
                assert_near(actual, exact, allowed)
                assert_observed_alike(actual, expected, allowed)
            except Exception:
                with default_device(device):
                    assume(stock_conforms(program, "inductor", device))
                raise
        compared += 1

    compare()
    assert compared >= 0.9 * wanted
