"""The dispatcher: its keys, the kernels that are registered with it, and calls below a key. Checked on torch 2.13.0."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch._C import DispatchKey, DispatchKeySet

from xpu_amp_dynamo.compat.op_types import OpOverload, qualified_name

__all__ = [
    "DispatchKey",
    "DispatchKeySet",
    "dispatch_key",
    "excluding_keys",
    "has_kernel",
    "is_implemented",
    "keys_behind",
    "keys_of",
    "names_with_kernel",
    "redispatch_of",
    "registered_op_names",
    "takes_numbers",
    "unregister",
    "without_torch_functions",
]

# A context in which the dispatcher passes over the keys of a set, for all ops that it is asked for. Autocast kernels
# enter it at every call: it is PyTorch's own class, with no call of Python around it. So is the next.
excluding_keys: Callable[[DispatchKeySet], AbstractContextManager[object]] = torch._C._ExcludeDispatchKeyGuard
# A context in which neither subclasses of tensors nor modes see the functions of PyTorch that are called.
without_torch_functions: Callable[[], AbstractContextManager[object]] = torch._C.DisableTorchFunction


def dispatch_key(name: str) -> DispatchKey:
    """Return a dispatch key by its name, as in ``"AutocastCPU"``."""
    return getattr(DispatchKey, name)


def keys_behind(key: DispatchKey) -> DispatchKeySet:
    """Return all keys that the dispatcher looks at after one."""
    return torch._C._dispatch_keyset_full_after(key)


def keys_of(tensor: torch.Tensor) -> DispatchKeySet:
    """Return the keys that a tensor brings into a call."""
    return torch._C._dispatch_keys(tensor)


def redispatch_of(op: OpOverload) -> Callable[..., Any]:
    """Return the function that runs an op's kernel of the highest key among those given.

    It takes the keys, then the arguments of the op. It goes through the dispatcher, unlike a call of the kernel itself.
    """
    return op._handle.redispatch_boxed


def registered_op_names() -> list[str]:
    """List the overloads that are registered, by names such as ``"aten::add.Tensor"`` and ``"aten::relu"``."""
    return torch._C._dispatch_get_all_op_names()


def is_implemented(name: str) -> bool:
    """Tell whether an overload, named as in :func:`registered_op_names`, can run: it has a kernel for some key."""
    return torch._C._dispatch_has_kernel(name)


def has_kernel(op: OpOverload, key: str) -> bool:
    """Tell whether an overload has a kernel for the key of a name, be it one that passes the call on."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), key)


def names_with_kernel(key: str) -> list[str]:
    """List the names of the overloads that have a kernel for the key of a name."""
    return torch._C._dispatch_get_registrations_for_dispatch_key(key)


def unregister(library: torch.library.Library) -> None:
    """Take back all kernels that a library registered, now and not when the library dies."""
    library._destroy()


def takes_numbers(op: OpOverload) -> bool:
    """Tell whether PyTorch lets an op have Python numbers in the place of tensors, as in ``x + 1``."""
    namespace, _, name = qualified_name(op).partition("::")
    return namespace == "aten" and torch._C._should_allow_numbers_as_tensors(name)
