"""Random float32 programs compiled with no region around them are still float32 programs."""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, note, settings

from tests.programs.observation import allowed_errors, assert_observed_alike, observe
from tests.programs.random_float32_programs import EXPRESSIONS, Float32Program, float32_programs, inputs

# `make fuzz` sets the number, and draws other programs in each run.
NUMBER = os.environ.get("RANDOM_PROGRAMS")
# To shrink a program takes as long as some hundreds of programs.
FEW = settings(
    max_examples=100,
    derandomize=NUMBER is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=[Phase.generate, *([Phase.shrink] if NUMBER else [])],
)
MANY = settings(FEW, max_examples=int(NUMBER or 400))
INDUCTOR = settings(FEW, max_examples=int(NUMBER or 400) // 8)


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
    except Exception:  # whatever it is, it is not ours
        return False
    return True


def run(number: settings, inner_backend: str, strategy: Any) -> None:
    """Compare so many programs with themselves compiled, of which stock compilation may fail a few."""
    compared = 0

    @number
    @given(strategy)
    def compare(program: Float32Program) -> None:
        nonlocal compared
        check(program, inner_backend)
        compared += 1

    compare()
    assert compared >= 0.9 * number.max_examples


def test_float32_programs():
    run(FEW, "aot_eager", float32_programs())


@pytest.mark.slow
def test_many_float32_programs():
    run(MANY, "aot_eager", float32_programs(breaks=True, most=14))


@pytest.mark.slow
def test_float32_programs_through_inductor():
    run(INDUCTOR, "inductor", float32_programs(most=6, breaks=False))


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
