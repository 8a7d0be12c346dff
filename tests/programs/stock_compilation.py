"""Whether stock compilation gives what a program gives: what it fails is not ours to mend."""

from __future__ import annotations

import torch

from tests.programs.observation import allowed_errors, assert_observed_alike, observe
from tests.programs.random_float32_programs import Float32Program, inputs


def stock_conforms(program: Float32Program, inner_backend: str, device: str) -> bool:
    """Tell whether a program compiled for the inner backend alone gives what it gives uncompiled."""
    torch._dynamo.reset()
    expected = observe(program.function(), inputs(device))
    try:
        stock = torch.compile(program.function(compiled=True), backend=inner_backend, dynamic=False)
        allowed, _ = allowed_errors(program.function(), inputs(device), expected)
        assert_observed_alike(observe(stock, inputs(device)), expected, allowed)
    except Exception:  # whatever it is, it is not ours
        return False
    return True
