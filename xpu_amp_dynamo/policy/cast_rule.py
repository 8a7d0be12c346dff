"""The cast rule: which dtype an op of a policy wants for its inputs. Pure; serves eager and compiler alike."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch

from xpu_amp_dynamo.policy.tables.mixed_parameters import MIXED_PARAMETERS

LOWER_DTYPES = (torch.bfloat16, torch.float16)
ELIGIBLE_DTYPES = frozenset((*LOWER_DTYPES, torch.float32))


class Category(enum.Enum):
    """What a policy does with the inputs of an op that it lists."""

    LOWER_PRECISION = "lower_precision"
    FLOAT32 = "float32"
    PROMOTE = "promote"
    FOLLOW = "follow"
    BANNED = "banned"


# What goes by the dtypes that the inputs have.
BY_INPUTS = frozenset((Category.PROMOTE, Category.FOLLOW))


def wanted_dtype(
    category: Category | None,
    input_dtypes: Iterable[torch.dtype | None],
    lower_dtype: torch.dtype,
    *,
    takes_mixture: bool = False,
) -> torch.dtype | None:
    """Return the dtype to which one call's inputs are cast, those that :func:`needs_cast` tells of.

    Args:
        category: what the policy in force does with the op; None for an op that it does not list.
        input_dtypes: what :func:`argument_dtypes` tells of the call's inputs on the autocast device. Only promotion
            and following look at them, and following at their order.
        lower_dtype: the region's dtype, ``torch.bfloat16`` or ``torch.float16``.
        takes_mixture: whether the op's kernel reads float32 parameters beside a first input in lower precision, see
            :func:`takes_float32_parameters`.

    Returns:
        The wanted dtype, or None where the call is left alone.

    Example:
        >>> wanted_dtype(Policy.named("xpu").category("cat"), [torch.bfloat16, torch.float32], torch.bfloat16)
        torch.float32
    """
    if category is Category.LOWER_PRECISION:
        return lower_dtype
    if category is Category.FLOAT32:
        return torch.float32
    if category is Category.FOLLOW:
        return followed_dtype(input_dtypes, takes_mixture)
    return widest_dtype(input_dtypes) if category is Category.PROMOTE else None


def argument_dtypes(arguments: Iterable[Any], on_device: Callable[[torch.Tensor], bool]) -> list[torch.dtype | None]:
    """List the dtypes of the tensors among a call's arguments, inside lists too; None for an argument left out.

    Args:
        arguments: the arguments, in the order in which the op names them.
        on_device: tells which tensors count.
    """
    dtypes: list[torch.dtype | None] = []
    for argument in arguments:
        if argument is None:
            dtypes.append(None)
        elif isinstance(argument, torch.Tensor):
            if on_device(argument):
                dtypes.append(argument.dtype)
        elif isinstance(argument, (list, tuple)):
            dtypes.extend(argument_dtypes(argument, on_device))
    return dtypes


def takes_float32_parameters(op: str, device_type: str) -> bool:
    """Tell whether an op's kernel reads float32 parameters beside an input in lower precision, and gives the latter."""
    return op in MIXED_PARAMETERS.get(device_type, ()) or op in MIXED_PARAMETERS["any"]


def followed_dtype(input_dtypes: Iterable[torch.dtype | None], takes_mixture: bool) -> torch.dtype | None:
    """Return the dtype of the first input; None where the call gives that dtype as it is, or no cast could bring it.

    A float64 or complex input leaves the call alone. So does a kernel's mixture: the input in lower precision, weight
    and whatever else there is in float32. A bias without a weight is none: the backward of layer norm refuses it.
    """
    first, weight, *others = (*input_dtypes, None, None)
    parameters = {d for d in (weight, *others) if d is not None and (d.is_floating_point or d.is_complex)}
    if first not in ELIGIBLE_DTYPES or not parameters <= ELIGIBLE_DTYPES:
        return None
    is_mixture = first in LOWER_DTYPES and weight is torch.float32 and parameters == {weight}
    return None if takes_mixture and is_mixture else first


def is_eligible(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor may be cast at all: float64, integer and complex tensors stay as they are."""
    return tensor.dtype in ELIGIBLE_DTYPES


def needs_cast(tensor: torch.Tensor, wanted: torch.dtype) -> bool:
    """Tell whether a tensor on the autocast device has to be cast to be of the wanted dtype."""
    return tensor.dtype is not wanted and tensor.dtype in ELIGIBLE_DTYPES


def widest_dtype(input_dtypes: Iterable[torch.dtype | None]) -> torch.dtype | None:
    """Return the widest eligible dtype; None if there is none, or if a wider one takes part.

    A float64 or complex input leaves the call to native type promotion, which the op must then support.
    """
    floating = {d for d in input_dtypes if d is not None and (d.is_floating_point or d.is_complex)}
    if not floating or not floating <= ELIGIBLE_DTYPES:
        return None
    return functools.reduce(torch.promote_types, floating)
