"""What tensors know of themselves beyond their public attributes. Checked on torch 2.13.0."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import torch
from torch._prims_common import is_contiguous_or_false, is_non_overlapping_and_dense_or_false
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

# Returns how often the memory of a tensor was written to. The cache of casts asks at every cast of a weight: there is
# no call of Python in it. Tensors made in inference mode have no version and raise.
version_of: Callable[[torch.Tensor], int] = operator.attrgetter("_version")

# The layout of tensors that oneDNN packed.
PACKED_LAYOUT: torch.layout = torch._mkldnn  # type: ignore[attr-defined]


def is_tracked_view(tensor: torch.Tensor) -> bool:
    """Tell whether autograd knows a tensor as a view of another one."""
    return tensor._is_view()


def is_referenced_once(tensor: torch.Tensor) -> bool:
    """Tell whether nothing in PyTorch, such as a graph of autograd that saved it, holds a tensor besides Python."""
    return tensor._use_count() == 1  # type: ignore[attr-defined]


def copy_together(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
    """Copy tensors into others, in one kernel where the device has one for many."""
    torch._foreach_copy_(list(targets), list(sources))


def storage_address(tensor: torch.Tensor) -> int:
    """Return what identifies a tensor's storage as long as it lives, that of a fake tensor too."""
    return tensor.untyped_storage()._cdata


def is_surely_contiguous(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is contiguous; False where that depends on data, on which this does not guard."""
    return bool(is_contiguous_or_false(tensor))


def is_surely_dense(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor's elements fill its memory without overlap; False where that depends on data."""
    return bool(is_non_overlapping_and_dense_or_false(tensor))


def wraps_tensors(value: object) -> bool:
    """Tell whether a value is of a subclass of tensors that consists of other tensors, as ``DTensor`` does."""
    return is_traceable_wrapper_subclass(value)
