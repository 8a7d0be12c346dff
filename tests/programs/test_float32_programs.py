"""Random float32 programs compiled with no region around them are still float32 programs."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, note, settings

from tests.programs.observation import allowed_errors, assert_observed_alike, observe
from tests.programs.random_float32_programs import EXPRESSIONS, Float32Program, float32_programs, inputs

# `make fuzz` sets the number, and draws other programs in each run.
NUMBER = os.environ.get("RANDOM_PROGRAMS")
FEW = settings(
    max_examples=100,
    derandomize=NUMBER is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
MANY = settings(FEW, max_examples=int(NUMBER or 400))
INDUCTOR = settings(FEW, max_examples=int(NUMBER or 500) // 5, phases=[Phase.generate])


def check(program: Float32Program, inner_backend: str) -> None:
    """Compare a program with itself compiled."""
    note(str(program))
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = program.function()
        try:
            expected = observe(function, inputs())
        except (RuntimeError, TypeError):
            assume(False)  # what eager code refuses, such as a write to what backward needs
        compiled = torch.compile(
            program.function(compiled=True), backend="xpu_amp", options={"inner_backend": inner_backend}, dynamic=False
        )
        try:
            actual = observe(compiled, inputs())
            assert_observed_alike(actual, expected, allowed_errors(function, inputs(), expected))
        except Exception:
            assume(stock_conforms(program, inner_backend))
            raise


def stock_conforms(program: Float32Program, inner_backend: str) -> bool:
    """Tell whether a program compiled for the inner backend alone gives what it gives uncompiled."""
    torch._dynamo.reset()
    expected = observe(program.function(), inputs())
    try:
        stock = torch.compile(program.function(compiled=True), backend=inner_backend, dynamic=False)
        assert_observed_alike(
            observe(stock, inputs()), expected, allowed_errors(program.function(), inputs(), expected)
        )
    except Exception:  # noqa: BLE001 - whatever it is, it is not ours
        return False
    return True


@FEW
@given(float32_programs())
def test_float32_programs(program):
    check(program, "aot_eager")


@pytest.mark.slow
@MANY
@given(float32_programs())
def test_many_float32_programs(program):
    check(program, "aot_eager")


@pytest.mark.slow
@INDUCTOR
@given(float32_programs(most=6, breaks=False))
def test_float32_programs_through_inductor(program):
    check(program, "inductor")


def test_the_programs_are_various():
    assert len(set(EXPRESSIONS)) > 90
    seen, refused = set(), 0

    @FEW
    @given(float32_programs())
    def collect(program):
        nonlocal refused
        try:
            observe(program.function(), inputs())
        except (RuntimeError, TypeError):
            refused += 1
        else:
            seen.add(program.source)

    collect()
    assert len(seen) > 60, f"{refused} are refused"
