"""The cast rule: which dtype an op of a policy wants for its inputs. Pure; serves eager and compiler alike."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable

import torch

LOWER_DTYPES = (torch.bfloat16, torch.float16)
ELIGIBLE_DTYPES = frozenset((*LOWER_DTYPES, torch.float32))


class Category(enum.Enum):
    """What a policy does with the inputs of an op that it lists."""

    LOWER_PRECISION = "lower_precision"
    FLOAT32 = "float32"
    PROMOTE = "promote"
    BANNED = "banned"


def wanted_dtype(
    category: Category | None, input_dtypes: Iterable[torch.dtype], lower_dtype: torch.dtype
) -> torch.dtype | None:
    """Return the dtype to which one call's inputs are cast, those that :func:`needs_cast` tells of.

    Args:
        category: what the policy in force does with the op; None for an op that it does not list.
        input_dtypes: dtypes of all tensors among the call's inputs on the autocast device, in any order. Only
            promotion looks at them.
        lower_dtype: the region's dtype, ``torch.bfloat16`` or ``torch.float16``.

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
    return widest_dtype(input_dtypes) if category is Category.PROMOTE else None


def is_eligible(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor may be cast at all: float64, integer and complex tensors stay as they are."""
    return tensor.dtype in ELIGIBLE_DTYPES


def needs_cast(tensor: torch.Tensor, wanted: torch.dtype) -> bool:
    """Tell whether a tensor on the autocast device has to be cast to be of the wanted dtype."""
    return tensor.dtype is not wanted and tensor.dtype in ELIGIBLE_DTYPES


def widest_dtype(input_dtypes: Iterable[torch.dtype]) -> torch.dtype | None:
    """Return the widest eligible dtype; None if there is none, or if a wider one takes part.

    A float64 or complex input leaves the call to native type promotion, which the op must then support.
    """
    floating = {d for d in input_dtypes if d.is_floating_point or d.is_complex}
    if not floating or not floating <= ELIGIBLE_DTYPES:
        return None
    return functools.reduce(torch.promote_types, floating)
