"""Random programs: compiled they give bit for bit what eager ``autocast`` gives, gradients included."""

from __future__ import annotations

import contextlib
import os
import warnings

import pytest
import torch
from hypothesis import HealthCheck, assume, given, note, settings

import xpu_amp_dynamo
from tests.programs.random_programs import EXPRESSIONS, WRITES, inputs, programs
from tests.support.comparison import assert_same, outcome_of, register_backend

# `make fuzz` sets the number, and draws other programs in each run.
NUMBER = os.environ.get("RANDOM_PROGRAMS")
OFTEN = settings(
    max_examples=int(NUMBER or 120),
    derandomize=NUMBER is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
SELDOM = settings(OFTEN, max_examples=40)


def outcome_or_error(call, around):
    """Run a program in a region; an exception is an outcome too."""
    region = torch.autocast("cpu", around) if around else contextlib.nullcontext()

    def run(*arguments):
        with region:
            return call(*arguments)

    try:
        return outcome_of(run, inputs())
    except (RuntimeError, TypeError) as error:
        return error


def lowered_once(gm, example_inputs):
    """Run a lowered graph, after checking that lowering it again changes nothing."""
    before = gm.code
    with torch.autocast("cpu", enabled=False):
        xpu_amp_dynamo.lower(gm, example_inputs, enabled=False)
    assert gm.code == before
    return gm


LOWERED_ONCE = register_backend(lowered_once)


def check(program, **options):
    """Compare a program with itself compiled."""
    note(str(program))
    torch._dynamo.reset()
    xpu_amp_dynamo.install(device_type="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # float16 without a scaler; casts of complex numbers
        function = program.function()
        expected = outcome_or_error(function, program.around)
        # What eager code refuses, a mixture of dtypes for the most part, need not compile.
        assume(not isinstance(expected, Exception))
        options = {"inner_backend": LOWERED_ONCE, "enabled": False, **options}
        compiled = torch.compile(function, backend="xpu_amp", fullgraph=True, options=options)
        actual = outcome_or_error(compiled, program.around)
    raise_errors(actual)
    assert_same(actual, expected)


def raise_errors(outcome):
    """Raise an outcome that is an error, but pass over programs that Dynamo cannot capture.

    These are few, a copy of overlapping memory onto itself for one, which eager code accepts.
    """
    assume(not isinstance(outcome, torch._dynamo.exc.TorchRuntimeError))
    if isinstance(outcome, Exception):
        raise outcome


@SELDOM
@given(programs())
def test_compiled_equals_eager(program):
    check(program)


@pytest.mark.slow
@OFTEN
@given(programs())
def test_compiled_equals_eager_on_many(program):
    check(program)


@pytest.mark.slow
@settings(OFTEN, max_examples=int(NUMBER or 120) // 3)
@given(programs())
def test_float32_programs_keep_their_dtypes(program):
    """With no region around it, a program that runs without autocast runs compiled, and its dtypes stay."""
    note(str(program))
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = program.function()
        expected = outcome_or_error(function, None)
        assume(not isinstance(expected, Exception))
        # Not by "eager": an operand that a region no longer needs to copy, and backward does, may be written to later.
        compiled = torch.compile(function, backend="xpu_amp", fullgraph=True, options={"inner_backend": "aot_eager"})
        actual = outcome_or_error(compiled, None)
    raise_errors(actual)
    assert dtypes_of(actual) == dtypes_of(expected)


def dtypes_of(outcome):
    """Return the dtypes of an outcome but for those of gradients: AOTAutograd differentiates views under no_grad."""
    return [t.dtype for t in outcome[: -len(inputs())]]


def test_the_programs_are_various():
    assert len(EXPRESSIONS) + len(WRITES) > 80
    assert len(set(EXPRESSIONS)) == len(EXPRESSIONS)
    seen = set()

    @settings(OFTEN, max_examples=100)
    @given(programs())
    def collect(program):
        assume(not isinstance(outcome_or_error(program.function(), program.around), Exception))
        seen.add(program.source)

    collect()
    assert len(seen) > 30
