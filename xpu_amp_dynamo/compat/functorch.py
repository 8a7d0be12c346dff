"""The levels that ``grad``, ``vmap`` and ``jvp`` of ``torch.func`` open, and the tensors wrapped for these.

Checked on torch 2.13.0.
"""

from __future__ import annotations

import contextlib

import torch
from torch._C import _functorch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

# Where the functions are from that captured graphs call to enter and leave levels, and to wrap and unwrap tensors.
_MODULES = {
    "torch._C._functorch",
    "torch._functorch.predispatch",
    "torch._functorch.eager_transforms",
    "torch.autograd.forward_ad",
}


def is_level_function(function: object) -> bool:
    """Tell whether a function enters or leaves a level, or wraps or unwraps a tensor for one."""
    return getattr(function, "__module__", None) in _MODULES


def outside_levels() -> contextlib.AbstractContextManager[object]:
    """Return a context in which ops see plain tensors only, as if no level were open."""
    return temporarily_clear_interpreter_stack()


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is a wrapper of some level, be it over by now."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def unwrapped(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor inside one wrapper."""
    return _functorch.get_unwrapped(tensor)
