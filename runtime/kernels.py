"""The autocast kernel of one op: casts its inputs as the policy says and runs the op below autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from xpu_amp_dynamo.runtime.cast_cache import CastCache

from xpu_amp_dynamo.cast_rule import ELIGIBLE_DTYPES, Category, fixed_dtype, widest_dtype
from xpu_amp_dynamo.devices import autocast_key
from xpu_amp_dynamo.errors import BannedOpError

Kernel = Callable[..., Any]

CAST_CACHE = CastCache()


def make_kernel(op: OpOverload, category: Category, device_type: str) -> Kernel:
    """Return the kernel that runs ``op`` under a region of ``device_type``, as the dispatcher calls it.

    Args:
        op: the out-of-place overload.
        category: what the policy does with it.
        device_type: device type of the autocast key; tensors of others pass untouched.

    Returns:
        A function of the dispatch key set and the op's own arguments.
    """
    if category is Category.BANNED:
        return _make_ban(op)
    key = autocast_key(device_type)
    autocast_keys = torch._C.DispatchKeySet(key)
    below_autocast = torch._C._dispatch_keyset_full_after(key)
    redispatch = op._handle.redispatch_boxed
    excluded = torch._C._ExcludeDispatchKeyGuard
    wanted = _wanted_dtype(category, device_type)

    # One of these calls runs for every listed op of an eager model: about 5 microseconds each, so the
    # keyword-free path is spelled out and everything that can be looked up once is.
    def kernel(keys: torch._C.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        dtype = wanted(args, kwargs)
        with excluded(autocast_keys):
            if dtype is not None:
                args = tuple([cast_argument(a, dtype, device_type) for a in args])
                if kwargs:
                    kwargs = {name: cast_argument(a, dtype, device_type) for name, a in kwargs.items()}
            return redispatch(keys & below_autocast, *args, **kwargs)

    return kernel


def cast_argument(argument: Any, dtype: torch.dtype, device_type: str) -> Any:
    """Return an op's argument with its eligible tensors, those inside a list too, cast to ``dtype``."""
    if isinstance(argument, torch.Tensor):
        held = argument.dtype
        if held is dtype or held not in ELIGIBLE_DTYPES or argument.device.type != device_type:
            return argument
        return CAST_CACHE.cast(argument, dtype)
    if isinstance(argument, (list, tuple)):
        return [cast_argument(a, dtype, device_type) for a in argument]
    return argument


def _wanted_dtype(category: Category, device_type: str) -> Callable[[Any, Any], torch.dtype | None]:
    """Return the function that decides a call's dtype, given its arguments."""
    if category is Category.PROMOTE:
        return lambda args, kwargs: widest_dtype(_tensor_dtypes([*args, *kwargs.values()], device_type))
    if category is Category.FLOAT32:
        return lambda args, kwargs: torch.float32
    return lambda args, kwargs: fixed_dtype(category, torch.get_autocast_dtype(device_type))


def _tensor_dtypes(arguments: list[Any] | tuple[Any, ...], device_type: str) -> list[torch.dtype]:
    """List the dtypes of all tensors of the device type among arguments and inside lists."""
    dtypes: list[torch.dtype] = []
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            if argument.device.type == device_type:
                dtypes.append(argument.dtype)
        elif isinstance(argument, (list, tuple)):
            dtypes.extend(_tensor_dtypes(argument, device_type))
    return dtypes


def _make_ban(op: OpOverload) -> Kernel:
    """Return the kernel of a banned op."""

    def kernel(keys: torch._C.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        raise BannedOpError(op._schema.name)

    return kernel
