"""A small model, an input for it, and a store of casted weights that is empty at first."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from xpu_amp_dynamo.runtime.weight_store import WEIGHTS

WIDTH = 8


@pytest.fixture
def no_kept_casts() -> Iterator[None]:
    """Check that no test before has left casts, and have garbage be looked for among the objects of this one alone."""
    assert len(WEIGHTS) == 0
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def model(device: str) -> torch.nn.Sequential:
    """Return two linear layers."""
    return torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, 2)).to(device)


@pytest.fixture
def x(device: str) -> torch.Tensor:
    """Return a batch for the model."""
    return torch.randn(3, WIDTH, device=device)
