"""The cast rule: which dtype an op of a policy wants for its inputs. Pure; serves eager and compiler alike."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from xpu_amp_dynamo.policy import Policy

LOWER_DTYPES = (torch.bfloat16, torch.float16)
ELIGIBLE_DTYPES = frozenset((*LOWER_DTYPES, torch.float32))


class Category(enum.Enum):
    """What a policy does with the inputs of an op that it lists."""

    LOWER_PRECISION = "lower_precision"
    FLOAT32 = "float32"
    PROMOTE = "promote"
    BANNED = "banned"


def cast_rule(
    op: str, input_dtypes: Iterable[torch.dtype], policy: Policy, lower_dtype: torch.dtype
) -> torch.dtype | None:
    """Return the dtype to which the eligible inputs of one call are cast.

    Args:
        op: name of the op as the policy lists it, such as ``"linear"`` or ``"mylib::attention"``.
        input_dtypes: dtypes of all tensors among the call's inputs on the autocast device, in any order.
        policy: the policy in force.
        lower_dtype: the region's dtype, ``torch.bfloat16`` or ``torch.float16``.

    Returns:
        The wanted dtype, or None where the call is left alone. Only inputs of a dtype in
        ``ELIGIBLE_DTYPES`` are to be cast; float64, integer and complex inputs stay as they are.

    Example:
        >>> cast_rule("cat", [torch.bfloat16, torch.float32], Policy.named("xpu"), torch.bfloat16)
        torch.float32
    """
    category = policy.category(op)
    if category is Category.PROMOTE:
        return widest_dtype(input_dtypes)
    return fixed_dtype(category, lower_dtype)


def fixed_dtype(category: Category | None, lower_dtype: torch.dtype) -> torch.dtype | None:
    """Return the dtype that a category wants whatever its inputs are, None if it depends on them."""
    if category is Category.LOWER_PRECISION:
        return lower_dtype
    return torch.float32 if category is Category.FLOAT32 else None


def widest_dtype(input_dtypes: Iterable[torch.dtype]) -> torch.dtype | None:
    """Return the widest eligible dtype; None if there is none, or if a wider one takes part.

    A float64 or complex input leaves the call to native type promotion, which the op must then support.
    """
    floating = {d for d in input_dtypes if d.is_floating_point or d.is_complex}
    if not floating or not floating <= ELIGIBLE_DTYPES:
        return None
    return functools.reduce(torch.promote_types, floating)
