"""Who holds the memory of a tensor. Checked on torch 2.13.0."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from xpu_amp_dynamo.compat.dispatcher import without_torch_functions
from xpu_amp_dynamo.compat.tensors import storage_address

__all__ = ["LONE", "StorageWeakRef", "address_of_storage", "holders_of", "is_lone", "reference_to_storage"]

# Counts what holds a storage, given by ``StorageWeakRef.cdata``; 0 when it is gone. PyTorch's own function, since
# compiled graphs ask for each weight at each call.
holders_of: Callable[[int], int] = torch._C._storage_Use_Count


def reference_to_storage(tensor: torch.Tensor) -> StorageWeakRef:
    """Return a reference to a tensor's storage that does not keep its memory."""
    return StorageWeakRef(tensor.untyped_storage())


def address_of_storage(tensor: torch.Tensor) -> int | None:
    """Return the number by which ``StorageWeakRef`` knows a tensor's storage, None for a tensor without one."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or not torch._C._has_storage(tensor):
        return None
    with without_torch_functions():  # modes of the program are not to see this
        return storage_address(tensor)


def is_lone(tensor: torch.Tensor) -> bool:
    """Tell whether nothing but this tensor holds its memory: no view, alias, detached tensor or NumPy array."""
    return holders_of(reference_to_storage(tensor).cdata) == LONE


def _count_for_one_tensor() -> int:
    """Return the holders of a storage of one tensor: PyTorch's own object for it in Python may be one of them."""
    tensor = torch.empty(1, device="cpu")
    reference = reference_to_storage(tensor)
    return holders_of(reference.cdata)


# The holders of a storage that is of one tensor alone.
LONE = _count_for_one_tensor()
