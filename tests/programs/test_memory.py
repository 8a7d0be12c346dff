"""Long runs hold no more memory at their end than after their start."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

import xpu_amp_dynamo
from tests.support.memory import resident_bytes

STEPS, SETTLED = 800, 200


def live() -> tuple[int, int]:
    """Count the tensors that Python holds, and their bytes."""
    gc.collect()
    # By type: isinstance asks each object, and some deprecated ones of torch answer with a warning.
    tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
    return len(tensors), sum(t.untyped_storage().nbytes() for t in tensors)


def run(call, model, steps):
    """Train by batches of ever other sizes, with inference now and then."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for step in steps:
        x = torch.randn(2 + step % 37, 32)
        call(x).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            with torch.no_grad():
                call(x)


@pytest.mark.parametrize("way", ["eager region", "recast", "cached"])
def test_many_steps(way):
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))

    def eager(x):
        with xpu_amp_dynamo.autocast("cpu"):
            return model(x)

    compiled = torch.compile(model, backend="xpu_amp", dynamic=True, options={"weights": way})
    call = eager if way == "eager region" else compiled
    run(call, model, range(SETTLED))
    before, resident_before = live(), resident_bytes()
    run(call, model, range(SETTLED, STEPS))
    after, resident_after = live(), resident_bytes()
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1] + 100_000
    # Allocators keep some of what they once had.
    assert resident_after < resident_before + 20 * 2**20


def test_many_models_leave_nothing():
    """Lowering keeps no graph, and the store no weight, of models that are gone."""

    def one():
        model = torch.nn.Linear(64, 64)
        options: dict[str, Any] = {"inner_backend": "eager", "weights": "cached"}
        compiled = torch.compile(model, backend="xpu_amp", options=options)
        with torch.no_grad():
            compiled(torch.randn(2, 64))
        torch._dynamo.reset()

    for _ in range(3):
        one()
    before = live()
    for _ in range(10):
        one()
    assert live()[0] <= before[0]
    assert xpu_amp_dynamo.cached_weight_bytes() == 0
