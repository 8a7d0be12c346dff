"""Random float32 programs compiled with no region around them are still float32 programs."""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st

import xpu_amp_dynamo
from tests.programs.observation import allowed_errors, assert_observed_alike, observe
from tests.programs.random_float32_programs import EXPRESSIONS, Float32Program, float32_programs, inputs
from tests.programs.stock_compilation import stock_conforms

# `make fuzz` sets the number, and draws other programs in each run.
NUMBER = os.environ.get("RANDOM_PROGRAMS")
# To shrink a program takes as long as some hundreds of programs.
FEW = settings(
    max_examples=20,
    derandomize=NUMBER is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=[Phase.generate, *([Phase.shrink] if NUMBER else [])],
)
MANY = settings(FEW, max_examples=int(NUMBER or 36))
INDUCTOR = settings(FEW, max_examples=int(NUMBER or 36) // 4)


LOWER = (torch.bfloat16, torch.float16)


def check(program: Float32Program, inner_backend: str, lower: torch.dtype, device: str) -> None:
    """Compare a program with itself compiled, in bfloat16 where its values go beyond float16's range."""
    note(str(program))
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = program.function()
        try:
            expected = observe(function, inputs(device))
        except (RuntimeError, TypeError):
            assume(False)  # what eager code refuses, such as a write to what backward needs
        allowed, largest = allowed_errors(function, inputs(device), expected)
        options: dict[str, Any] = {"inner_backend": inner_backend, "device_type": device}
        options["dtype"] = lower if largest < 30000 else torch.bfloat16
        compiled = torch.compile(program.function(compiled=True), backend="xpu_amp", options=options, dynamic=False)
        try:
            with xpu_amp_dynamo.record_lowerings() as reports:
                actual = observe(compiled, inputs(device))
            assert sum(report.ops["lower_precision"] for report in reports), "no op runs lower"
            assert_observed_alike(actual, expected, allowed)
        except Exception:
            assume(stock_conforms(program, inner_backend, device))
            raise


def run(number: settings, inner_backend: str, strategy: Any, device: str) -> None:
    """Compare so many programs with themselves compiled, of which stock compilation may fail a few."""
    compared = 0

    @number
    @given(strategy, st.sampled_from(LOWER))
    def compare(program: Float32Program, lower: torch.dtype) -> None:
        nonlocal compared
        check(program, inner_backend, lower, device)
        compared += 1

    # Programs make tensors without a word about the device.
    with torch.device(device) if device != "cpu" else contextlib.nullcontext():
        compare()
    assert compared >= 0.9 * number.max_examples


def test_float32_programs(device):
    run(FEW, "aot_eager", float32_programs(), device)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_float32_programs(device):
    run(MANY, "aot_eager", float32_programs(breaks=True, most=10), device)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_float32_programs_through_inductor(device):
    run(INDUCTOR, "inductor", float32_programs(most=5, breaks=False), device)


@pytest.mark.parametrize(
    "program",
    [
        lambda h: h * torch.rsqrt((h * h).mean(-1, keepdim=True)),
        lambda h: h.square().mean(-1).sqrt(),
        lambda h: (h * 1000).mean(-1),
        lambda h: h / 1e-3,
        lambda h: h * 1e-6 * 1e6,
    ],
    ids=["rms norm", "square", "times", "over", "small"],
)
@pytest.mark.parametrize("lower", LOWER, ids=["bfloat16", "float16"])
def test_range(program, lower):
    """A product is well within float16's range; what the program makes of it in float32 is not."""

    def function(x, w):
        return program(x @ w)

    x, w = torch.randn(4, 64) * 30, torch.randn(64, 8)
    expected = function(x, w)
    options = {"inner_backend": "eager", "dtype": lower}
    actual = torch.compile(function, backend="xpu_amp", options=options)(x, w)
    assert (actual - expected).norm() < 0.02 * expected.norm()


def test_the_programs_are_various():
    assert len(set(EXPRESSIONS)) > 90
    seen, refused = set(), 0

    @settings(FEW, max_examples=100)
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
    assert len(seen) > 40, f"{refused} are refused"
