"""The cache of casted weights: each float32 leaf parameter is cast once per region, and never served stale."""

from __future__ import annotations

import threading
import weakref
from typing import NamedTuple

import torch

from xpu_amp_dynamo.compat.tensors import is_tracked_view, version_of
from xpu_amp_dynamo.compat.tracing import dispatch_mode_count, is_traced
from xpu_amp_dynamo.runtime.autocast_cache_lifetime import token_of_autocast_cache
from xpu_amp_dynamo.runtime.hide_from_dynamo import hide_from_dynamo
from xpu_amp_dynamo.runtime.weight_store import WEIGHTS

_Key = tuple[int, torch.dtype, bool]


class _Entry(NamedTuple):
    source: weakref.ref[torch.Tensor]
    version: int
    storage: int
    cast: torch.Tensor


class CastCache:
    """Casts of float32 leaf parameters, dropped when PyTorch drops its own autocast cache.

    An entry is keyed on the parameter's identity, the wanted dtype and the grad mode, and holds while the
    parameter's version counter and storage stay as they were. Writes through ``.data`` change neither, so
    they are seen only in the next region, as in stock PyTorch.
    """

    def __init__(self) -> None:
        self._entries: dict[_Key, _Entry] = {}
        self._lifetime: weakref.ref[object] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return ``tensor`` in ``dtype``, from the cache or the store of compiled code where it is kept there."""
        if not (tensor.requires_grad and torch.is_grad_enabled()) and len(WEIGHTS) and not is_traced():
            kept = WEIGHTS.find(tensor, dtype)
            if kept is not None:
                return kept
        if not tensor.requires_grad or not tensor.is_leaf or not _may_cache_now():
            return tensor.to(dtype)
        key = (id(tensor), dtype, torch.is_grad_enabled())
        entry = self._entries.get(key)
        if (
            entry is not None
            and entry.source() is tensor
            and entry.version == version_of(tensor)
            and entry.storage == tensor.data_ptr()
        ):
            return entry.cast
        cast = tensor.to(dtype)
        if _may_cache(tensor, dtype):
            self._insert(key, _Entry(weakref.ref(tensor), version_of(tensor), tensor.data_ptr(), cast))
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


def _may_cache(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Tell whether a leaf's cast may be kept: that of a plain float32 tensor with storage of its own."""
    return (
        tensor.dtype is torch.float32
        and dtype is not torch.float32
        and type(tensor) in (torch.nn.Parameter, torch.Tensor)
        and not is_tracked_view(tensor)
        and not tensor.is_inference()
    )


def _may_cache_now() -> bool:
    """Tell whether casts made at this moment may outlive this call: not those that some tracer or mode sees."""
    return torch.is_autocast_cache_enabled() and not dispatch_mode_count() and not is_traced()
