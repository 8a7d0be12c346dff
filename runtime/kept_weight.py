"""What the store knows of one weight: its casts, and what tells whether it changed since they were made."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch

from xpu_amp_dynamo.compat.storages import LONE, StorageWeakRef, holders_of, reference_to_storage
from xpu_amp_dynamo.compat.tensors import version_of

# A memory format, or PACKED.
Layout = torch.memory_format | torch.layout
# The last change that was noticed, the version and the storage of a weight.
State = tuple[object, int, StorageWeakRef]


class StoredCast(NamedTuple):
    """A cast, and the state of its weight when it was made; None if that cannot tell of later changes."""

    tensor: torch.Tensor
    state: State | None


class KeptWeight:
    """A weight of which casts are kept.

    A cast is up to date as long as the weight's version counter stays, no change is noticed that it does not count,
    and the weight's memory is its own. Whoever else holds that memory, an alias made by ``.data`` or a NumPy array, may
    write to it unseen: then nothing tells of changes, and casts are made anew at each use.

    Args:
        weight: a parameter.
        on_death: called with the dead reference when the weight is gone.
    """

    def __init__(self, weight: torch.Tensor, on_death: Callable[[weakref.ref[torch.Tensor]], None]) -> None:
        self.reference = weakref.ref(weight, on_death)
        self.identity = id(weight)
        self.casts: dict[tuple[torch.dtype, Layout], StoredCast] = {}
        self._storage = reference_to_storage(weight)
        # Replaced, not counted up: two threads that notice changes at once must not make one of them.
        self._change = object()

    @property
    def storage(self) -> int:
        """The number of the storage that the weight had when it was last cast."""
        return self._storage.cdata

    def notice_change(self) -> None:
        """Have all casts made anew at their next use."""
        self._change = object()

    def state(self, weight: torch.Tensor) -> State | None:
        """Return what changes with the weight, None if nothing tells of all its changes."""
        if weight.is_inference() or holders_of(self._storage.cdata) != LONE:
            return None
        return self._change, version_of(weight), self._storage

    def new_state(self, weight: torch.Tensor) -> State | None:
        """Return the state, of storage that the weight may have got since it was last cast."""
        self._storage = reference_to_storage(weight)
        return self.state(weight)

    def up_to_date(self, weight: torch.Tensor, dtype: torch.dtype, layout: Layout) -> StoredCast | None:
        """Return the cast of the weight as it is now, None if there is none."""
        cast = self.casts.get((dtype, layout))
        return None if cast is None or cast.state is None or cast.state != self.state(weight) else cast

    def keep(self, cast: torch.Tensor, state: State | None) -> None:
        """Keep a cast in the weight's own layout, with the state of the weight from before it was made."""
        self.casts[cast.dtype, torch.preserve_format] = StoredCast(cast, state)
