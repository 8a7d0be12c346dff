"""The casts of weights in eager regions: kept in the store, and one autograd node for each in a region."""

from __future__ import annotations

import threading
import weakref
from typing import NamedTuple

import torch

from xpu_amp_dynamo.compat.storages import is_lone
from xpu_amp_dynamo.compat.tensors import is_tracked_view, version_of
from xpu_amp_dynamo.compat.tracing import dispatch_mode_count, is_traced
from xpu_amp_dynamo.runtime.autocast_cache_lifetime import token_of_autocast_cache
from xpu_amp_dynamo.runtime.differentiable_cast import differentiable_cast
from xpu_amp_dynamo.runtime.hide_from_dynamo import hide_from_dynamo
from xpu_amp_dynamo.runtime.kept_weight import KeptWeight, State
from xpu_amp_dynamo.runtime.out_of_memory import make_room
from xpu_amp_dynamo.runtime.weight_store import WeightStore

_Key = tuple[int, torch.dtype, bool]


class _Entry(NamedTuple):
    """A cast, and what tells that it is that of the tensor as it is now."""

    cast: torch.Tensor
    source: KeptWeight | weakref.ref[torch.Tensor]
    state: State | tuple[int, int]


class CastCache:
    """Casts of float32 leaf tensors.

    The data of parameters' casts are in the store, which knows when they are stale, and live on when a region ends.
    What takes part in a graph of autograd is dropped when PyTorch drops its own autocast cache: a region has one node
    for each weight, as in stock PyTorch. So are the casts of other leaf tensors that require a gradient. These hold
    while the tensor's version counter and storage stay: writes through ``.data`` change neither.
    """

    def __init__(self, store: WeightStore) -> None:
        self._store = store
        self._entries: dict[_Key, _Entry] = {}
        self._lifetime: weakref.ref[object] | None = None
        self._lock = threading.Lock()
        store.add_user(self)

    def __len__(self) -> int:
        return len(self._entries)

    # This runs for each cast of an eager model: what most tensors are comes first.
    def cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return ``tensor`` in ``dtype``, from the cache or the store where it is kept there."""
        if type(tensor) is torch.nn.Parameter:
            if not torch.is_autocast_cache_enabled() or is_traced():
                return tensor.to(dtype)
            differentiable = tensor.requires_grad and torch.is_grad_enabled()
            if not differentiable and (found := self._store.find(tensor, dtype)) is not None:
                return found.tensor
            return self._cast_of_weight(tensor, dtype, differentiable) if _may_keep(tensor, dtype) else tensor.to(dtype)
        if not tensor.requires_grad or not tensor.is_leaf or not _may_cache(tensor, dtype):
            return tensor.to(dtype)
        return self._cast_of_leaf(tensor, dtype)

    def forget(self) -> None:
        """Drop all casts."""
        self._entries.clear()

    def _cast_of_weight(self, weight: torch.Tensor, dtype: torch.dtype, differentiable: bool) -> torch.Tensor:
        """Return the cast of a weight, kept unless a mode sees how it is made or no memory is left for it."""
        try:
            if differentiable:
                return self._differentiable_cast(weight, dtype)
            return weight.to(dtype) if dispatch_mode_count() else self._store.cast(weight, dtype).tensor
        except RuntimeError as error:
            make_room(self._store, error)
            return weight.to(dtype)

    def _differentiable_cast(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the cast of a weight with the region's node of autograd for it."""
        key, kept = (id(weight), dtype, True), self._store.kept(weight)
        entry = self._entries.get(key)
        if entry is not None and entry.source is kept and entry.state == kept.state(weight):
            return entry.cast
        if dispatch_mode_count() or weight.is_inference() or not is_lone(weight):
            return weight.to(dtype)
        kept, state = self._store.observe(weight)
        known = kept.up_to_date(weight, dtype, torch.preserve_format)
        if known is None:
            cast = weight.to(dtype)
            kept.keep(cast.detach(), state)
        else:
            cast = differentiable_cast(weight, known.tensor)
        if state is not None:
            self._insert(key, _Entry(cast, kept, state))
        return cast

    def _cast_of_leaf(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return the cast of a tensor that is no weight, from the region's."""
        key = (id(tensor), dtype, torch.is_grad_enabled())
        state = version_of(tensor), tensor.data_ptr()
        entry = self._entries.get(key)
        known = entry is not None and isinstance(entry.source, weakref.ref) and entry.source() is tensor
        if entry is not None and known and entry.state == state:
            return entry.cast
        cast = tensor.to(dtype)
        self._insert(key, _Entry(cast, weakref.ref(tensor), state))
        return cast

    def _insert(self, key: _Key, entry: _Entry) -> None:
        with self._lock:
            if self._lifetime is None or self._lifetime() is None:
                self._entries.clear()
                self._lifetime = token_of_autocast_cache(self._clear)
            self._entries[key] = entry

    @hide_from_dynamo
    def _clear(self, reference: object) -> None:
        if reference is self._lifetime:
            self._entries.clear()


def _may_keep(weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Tell whether a cast of a parameter may outlive this call."""
    return (
        weight.dtype is torch.float32
        and dtype is not torch.float32
        and weight.layout is torch.strided
        and weight.is_leaf
    )


def _may_cache(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Tell whether the cast of a leaf that is no parameter may serve all of a region."""
    return (
        tensor.dtype is torch.float32
        and dtype is not torch.float32
        and type(tensor) is torch.Tensor
        and not is_tracked_view(tensor)
        and not tensor.is_inference()
        and torch.is_autocast_cache_enabled()
        and not dispatch_mode_count()
        and not is_traced()
    )
