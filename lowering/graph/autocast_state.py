"""The autocast state under which a node runs, and its grad mode."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class AutocastState:
    """Autocast of one device type at one point of a program.

    Args:
        enabled: whether the policy applies.
        dtype: the lower precision, bfloat16 or float16.
        cache_enabled: whether casts of float32 parameters are shared.
        outermost: the number of the outermost region that the point lies in. Eager autocast shares casts within it.
        in_region: whether a region of the program says so, not an option. The dtypes that capture recorded there are
            those of autocast.
        grad_enabled: whether autograd records what runs there, which decides what casts may be shared.
    """

    enabled: bool
    dtype: torch.dtype
    cache_enabled: bool = True
    outermost: int = 0
    in_region: bool = False
    grad_enabled: bool = True
