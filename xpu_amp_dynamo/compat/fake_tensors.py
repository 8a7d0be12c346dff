"""Fake tensors, which have all of a tensor but data: the modes that they belong to. Checked on torch 2.13.0."""

from __future__ import annotations

import contextlib

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode, maybe_get_fake_mode

__all__ = ["FakeTensorMode", "mode_in_use", "mode_of_tensor", "with_python_kernels"]


def mode_in_use(values: object) -> FakeTensorMode | None:
    """Return the mode of what is compiled now, else one that is active, else that of the tensors in a nested value.

    Raises:
        AssertionError: these belong to several modes.
    """
    return detect_fake_mode(values)


def mode_of_tensor(tensor: torch.Tensor) -> FakeTensorMode | None:
    """Return the mode of a fake tensor, also of one inside a subclass or a wrapper; None for other tensors."""
    return maybe_get_fake_mode(tensor)


def with_python_kernels() -> contextlib.AbstractContextManager[None]:
    """Return a context in which ops run in Python where PyTorch has an implementation of them there.

    Some of those that are composed of others refuse symbolic sizes in C++.
    """
    return enable_python_dispatcher()
