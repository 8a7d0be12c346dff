"""Tensors for tests, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def matrices(*shapes: Sequence[int]) -> list[torch.Tensor]:
    """Return random float32 tensors of these shapes."""
    return [torch.randn(*shape) for shape in shapes]


def assert_near(actual: torch.Tensor, expected: torch.Tensor, bound: float = 0.02) -> None:
    """Check dtype, finiteness, and the relative error of the norm: a few roundings to bfloat16, 0.002 each."""
    assert actual.dtype is expected.dtype
    assert torch.equal(actual.isfinite(), expected.isfinite())
    assert (actual - expected).norm() <= bound * expected.norm()
