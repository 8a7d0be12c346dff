"""A cast that takes its values from one made before, with a node of its own in the graph of autograd."""

from __future__ import annotations

from typing import Any

import torch

from xpu_amp_dynamo.runtime.hide_from_dynamo import hide_from_dynamo


class _Cast(torch.autograd.Function):
    """The cast of a weight, of which the result is known already."""

    @staticmethod
    @hide_from_dynamo
    def forward(ctx: Any, weight: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Return the known result, as a tensor of its own."""
        ctx.dtype = weight.dtype
        return known.detach()

    @staticmethod
    @hide_from_dynamo
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient in the dtype of the weight."""
        return gradients[0].to(ctx.dtype), None


def differentiable_cast(weight: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return what ``weight.to(known.dtype)`` gives, in the memory of a cast that was made before.

    Args:
        weight: a tensor that requires a gradient.
        known: its cast, which itself is part of no graph. Whoever writes to it breaks graphs that saved the result.

    Returns:
        A tensor of which gradients go to the weight, in the weight's dtype.
    """
    cast: torch.Tensor = _Cast.apply(weight, known)
    return cast
