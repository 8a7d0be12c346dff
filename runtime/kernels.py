"""The autocast kernel of one op: casts its inputs as the policy says and runs the op below autocast."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch

from xpu_amp_dynamo.compat.dispatcher import (
    DispatchKeySet,
    excluding_keys,
    keys_behind,
    redispatch_of,
    takes_numbers,
    without_torch_functions,
)
from xpu_amp_dynamo.compat.op_types import OpOverload, qualified_name, schema_of
from xpu_amp_dynamo.errors import BannedOpError
from xpu_amp_dynamo.policy.cast_rule import (
    BY_INPUTS,
    ELIGIBLE_DTYPES,
    Category,
    argument_dtypes,
    needs_cast,
    takes_float32_parameters,
    wanted_dtype,
)
from xpu_amp_dynamo.policy.devices import autocast_key
from xpu_amp_dynamo.policy.tables.unmarked import WRITTEN_ARGUMENTS
from xpu_amp_dynamo.runtime.cast_cache import CastCache
from xpu_amp_dynamo.runtime.hide_from_dynamo import hide_from_dynamo
from xpu_amp_dynamo.runtime.weight_store import WEIGHTS

Kernel = Callable[..., Any]

CAST_CACHE = CastCache(WEIGHTS)


# Kernels keep nothing of a call, so that a policy installed again gets the same ones.
@functools.lru_cache(maxsize=1024)
def make_kernel(op: OpOverload, category: Category | None, device_type: str) -> Kernel:
    """Return the kernel that runs ``op`` under a region of ``device_type``, as the dispatcher calls it.

    Args:
        op: the out-of-place overload.
        category: what the policy does with it; None runs it as it is, with autocast off inside.
        device_type: device type of the autocast key; tensors of others pass untouched.

    Returns:
        A function of the dispatch key set and the op's own arguments.
    """
    if category is Category.BANNED:
        return _make_ban(op)
    key = autocast_key(device_type)
    autocast_keys = DispatchKeySet(key)
    below_autocast = keys_behind(key)
    run = _with_numbers(op) if takes_numbers(op) else redispatch_of(op)
    excluded = excluding_keys
    positions = _tensor_positions(op)
    on_device = operator.attrgetter(f"is_{device_type}")
    looks_at_inputs = category in BY_INPUTS
    mixes = takes_float32_parameters(qualified_name(op).removeprefix("aten::"), device_type)
    wanted = functools.lru_cache(maxsize=256)(functools.partial(wanted_dtype, category, takes_mixture=mixes))
    region_dtype, cast = torch.get_autocast_dtype, CAST_CACHE.cast

    # This runs for every listed op of an eager model, so whatever can be looked up once is, and the loop over the
    # tensor arguments and `needs_cast` are spelled out: each function call would cost as much as the check inside it.
    @hide_from_dynamo
    def kernel(keys: DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        # Casts run without autocast too: they call ops that the policy may list.
        with excluded(autocast_keys):
            dtypes = tuple(argument_dtypes((*args, *kwargs.values()), on_device)) if looks_at_inputs else ()
            dtype = wanted(dtypes, region_dtype(device_type))
            if dtype is not None:
                arguments = list(args)
                for position in positions:
                    if position >= len(arguments):
                        break
                    argument = arguments[position]
                    if not isinstance(argument, torch.Tensor):
                        arguments[position] = cast_nested(argument, dtype, on_device)
                    elif argument.dtype is not dtype and argument.dtype in ELIGIBLE_DTYPES and on_device(argument):
                        arguments[position] = cast(argument, dtype)
                args = tuple(arguments)
                if kwargs:
                    kwargs = {name: cast_nested(value, dtype, on_device) for name, value in kwargs.items()}
            return run(keys & below_autocast, *args, **kwargs)

    return kernel


def cast_nested(argument: Any, dtype: torch.dtype, on_device: Callable[[torch.Tensor], bool]) -> Any:
    """Return an op's argument with its eligible tensors, those inside a list too, cast to ``dtype``."""
    if isinstance(argument, torch.Tensor):
        return CAST_CACHE.cast(argument, dtype) if needs_cast(argument, dtype) and on_device(argument) else argument
    if isinstance(argument, (list, tuple)):
        return [cast_nested(a, dtype, on_device) for a in argument]
    return argument


def _with_numbers(op: OpOverload) -> Kernel:
    """Return what redispatches an op that may have been given numbers.

    The dispatcher hands such numbers to kernels as numbers, and only the op itself takes them back. Where a kernel
    calls it, the keys above autocast, torch functions and their modes have had their turn.
    """
    redispatch = redispatch_of(op)

    def run(keys: DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(argument, (int, float, complex)) for argument in args):
            return redispatch(keys, *args, **kwargs)
        with without_torch_functions():
            return op(*args, **kwargs)

    return run


def _tensor_positions(op: OpOverload) -> tuple[int, ...]:
    """Return the positions of the arguments that are tensors or hold tensors, but for those that the op writes to."""
    written = WRITTEN_ARGUMENTS.get(qualified_name(op).removeprefix("aten::"), ())
    arguments = [a for a in schema_of(op).arguments if not a.kwarg_only]
    return tuple(i for i, a in enumerate(arguments) if "Tensor" in str(a.type) and a.name not in written)


def _make_ban(op: OpOverload) -> Kernel:
    """Return the kernel of a banned op."""

    @hide_from_dynamo
    def kernel(keys: DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        raise BannedOpError(qualified_name(op))

    return kernel
