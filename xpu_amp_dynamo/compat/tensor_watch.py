"""Tells what version counters do not: that ``.data`` was read or set, Python wrote each element, tensors are swapped.

Checked on torch 2.13.0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from xpu_amp_dynamo.compat.uncompiled_frames import pass_over

Listener = Callable[[torch.Tensor], None]
# Methods that call a function of Python for each element, and do not count that they write.
_ELEMENT_WRITERS = ("apply_", "map_", "map2_")


def watch_tensors(on_data: Listener, on_swap: Listener) -> Callable[[], None]:
    """Watch all tensors of the process.

    ``torch.Tensor`` gets a property in front of the attribute ``data`` of its base class. Dynamo does not run it:
    graphs read ``data`` by a function of PyTorch, and tell by the version counter what they wrote.

    Args:
        on_data: called with a tensor before its ``data`` is read, before and after it is set, and after ``apply_``,
            ``map_`` and ``map2_`` wrote to it.
        on_swap: called with each tensor that ``torch.utils.swap_tensors`` is going to swap.

    Returns:
        What ends the watch.
    """
    stops = [
        _replace(torch.Tensor, "data", _watched_data(torch.Tensor.data, on_data)),
        _replace(torch.utils, "swap_tensors", _watched_swap(torch.utils.swap_tensors, on_swap)),
        *(
            _replace(torch.Tensor, name, _watched_writer(getattr(torch.Tensor, name), on_data))
            for name in _ELEMENT_WRITERS
        ),
    ]

    def stop() -> None:
        for each in stops:
            each()

    return stop


def _watched_data(data: Any, on_data: Listener) -> property:
    """Return a property that tells of accesses and leaves the rest to what ``data`` was before."""

    def get(tensor: torch.Tensor) -> torch.Tensor:
        on_data(tensor)
        alias: torch.Tensor = data.__get__(tensor)
        return alias

    def set(tensor: torch.Tensor, value: torch.Tensor) -> None:
        on_data(tensor)
        try:
            data.__set__(tensor, value)
        finally:
            on_data(tensor)

    pass_over(get.__code__)
    pass_over(set.__code__)
    return property(get, set)


def _watched_writer(write: Callable[..., torch.Tensor], on_write: Listener) -> Callable[..., torch.Tensor]:
    """Return a method that tells which tensor it wrote to."""

    def run(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        try:
            return write(tensor, *args, **kwargs)
        finally:
            on_write(tensor)

    pass_over(run.__code__)
    functools.update_wrapper(run, write, updated=())
    return run


def _watched_swap(swap: Callable[..., None], on_swap: Listener) -> Callable[..., None]:
    """Return the swap of tensors that tells which: it refuses those with weak references, as ours."""

    def swap_tensors(t1: torch.Tensor, t2: torch.Tensor) -> None:
        on_swap(t1)
        on_swap(t2)
        swap(t1, t2)

    swap_tensors.__doc__ = swap.__doc__
    return swap_tensors


def _replace(owner: Any, name: str, value: object) -> Callable[[], None]:
    """Set an attribute, and return what gives back the one before unless it was replaced meanwhile."""
    inherited = name not in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)

    def restore() -> None:
        if vars(owner).get(name) is not value:
            return
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, before)

    return restore
