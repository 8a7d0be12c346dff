"""How far values are from a reference."""

from __future__ import annotations

import torch

from xpu_amp_dynamo.compat.pytree import tensors_of_result


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the norm of the difference of two tensors over the norm of the second, infinite at a NaN of one only.

    Args:
        found: a result, on any device.
        wanted: the reference.
    """
    wide = torch.complex128 if wanted.is_complex() else torch.float64
    left, right = (tensor.detach().to("cpu", wide).flatten() for tensor in (found, wanted))
    finite = right.isfinite()
    if not left[finite].isfinite().all():
        return float("inf")
    norm = (left[finite] - right[finite]).norm() / right[finite].norm().clamp_min(1e-12)
    return float(norm)


def largest_relative_error(found: object, wanted: object) -> float:
    """Return the largest error of the tensors of floating-point numbers in two values that are nested alike.

    Args:
        found: a result, such as what a model returns.
        wanted: the reference.
    """
    pairs = zip(tensors_of_result(found), tensors_of_result(wanted), strict=True)
    return max((relative_error(a, b) for a, b in pairs if b.is_floating_point()), default=0.0)
