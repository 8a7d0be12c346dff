"""Ops of PyTorch's OpInfo database behind a product, with gradients, by the code that Inductor writes for XPUs."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

import xpu_amp_dynamo
from tests.conformance import compiled_exceptions
from tests.conformance.outcomes import compiled, outcome_of, outcome_or_none
from tests.conformance.test_compiled_ops import NAMES, assert_within_bounds, behind_a_product, first_sample_of

# PyTorch says other strides of transforms on XPUs than on CPUs, whose results the simulated XPU returns.
LAID_OUT_OTHERWISE = {name for name in NAMES if name.startswith("fft.")}
HAVE_MATRICES = set(NAMES) - compiled_exceptions.NO_MATRIX - compiled_exceptions.NOT_CAPTURED.keys()
SAMPLE = random.Random(0).sample(sorted(HAVE_MATRICES - LAID_OUT_OTHERWISE), 24)


@pytest.mark.parametrize("name", SAMPLE)
def test_it_is_near_float32(name, opencl):
    with xpu_amp_dynamo.simulated_xpu(mode="opencl"):
        call = behind_a_product(first_sample_of(name, "xpu"), torch.bfloat16)
        assert call is not None
        expected = outcome_or_none(call)
        assert expected is not None, "nothing was compared"
        through_inductor = compiled(call.function, device_type="xpu", inner_backend="inductor")
        actual = outcome_of(dataclasses.replace(call, function=through_inductor))
        assert actual.graphs
        assert_within_bounds(name, actual, expected, torch.bfloat16)
