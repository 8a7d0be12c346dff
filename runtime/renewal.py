"""Brings casts up to date in the memory that they have."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from xpu_amp_dynamo.compat.storages import is_lone
from xpu_amp_dynamo.compat.tensors import copy_together, is_referenced_once
from xpu_amp_dynamo.runtime.kept_weight import Layout


def is_renewable(cast: torch.Tensor, weight: torch.Tensor, layout: Layout) -> bool:
    """Tell whether a cast may be written to: it has the form of the weight, and no graph of autograd saved it."""
    same_form = cast.shape == weight.shape and cast.device == weight.device and _lies_as(cast, weight, layout)
    return same_form and is_lone(cast) and is_referenced_once(cast)


def _lies_as(cast: torch.Tensor, weight: torch.Tensor, layout: Layout) -> bool:
    """Tell whether a cast has the strides that a new one would have. Only those of the weight's own layout change."""
    if layout is not torch.preserve_format or cast.stride() == weight.stride():
        return True
    return cast.stride() == torch.empty_like(weight, device="meta").stride()


def renew(casts: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> None:
    """Cast weights into casts that there are: in one kernel where there are several, as far as devices have one.

    Args:
        casts: renewable ones, of one device and dtype.
        weights: their weights.
    """
    with torch.inference_mode(False), torch.no_grad():
        copy_together(casts, weights)
