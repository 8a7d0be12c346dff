"""The store of casted weights: each is cast once and kept until its parameter changes or dies."""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from xpu_amp_dynamo.compat.tensors import version_of
from xpu_amp_dynamo.ops.packed_linear import PACKED, pack, packed_weight_of
from xpu_amp_dynamo.runtime.hide_from_dynamo import hide_from_dynamo

_State = tuple[int, int, torch.Size]
# A memory format, or PACKED.
Layout = torch.memory_format | torch.layout
# A weight by its identity, and what it is cast to.
_Key = tuple[int, torch.dtype, Layout]
Casting = Callable[[torch.Tensor, torch.dtype, Layout], torch.Tensor]


def cast_weight(weight: torch.Tensor, dtype: torch.dtype, layout: Layout) -> torch.Tensor:
    """Return a weight in a dtype and layout, as a tensor that inference mode does not restrict."""
    with torch.inference_mode(False), torch.no_grad():
        if isinstance(layout, torch.memory_format):
            return weight.to(dtype, memory_format=layout)
        return pack(weight.to(dtype))


@dataclass
class _Entry:
    weight: weakref.ref[torch.Tensor]
    state: _State | None
    cast: torch.Tensor


class WeightStore:
    """Casts of parameters, kept while identity, version counter, storage and size of the parameter stay the same.

    A cast that went stale is made again in place where it can be, so that its address stays, as CUDA graphs want it.
    Casts are freed with their parameters. Writes through ``.data`` do not show in the version counter: see
    :func:`refresh_weights`. Optimizer steps, of which some do not show either, make casts stale too.

    Args:
        casting: casts a weight into new memory.
    """

    def __init__(self, casting: Casting = cast_weight) -> None:
        self._casting = casting
        self._entries: dict[_Key, _Entry] = {}
        self._lock = threading.RLock()
        self._users: weakref.WeakSet[CachedCasts] = weakref.WeakSet()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def bytes_held(self) -> int:
        """Bytes of all casts."""
        return sum(_bytes_of(entry.cast) for entry in list(self._entries.values()))

    def cast(self, weight: torch.Tensor, dtype: torch.dtype, layout: Layout = torch.preserve_format) -> torch.Tensor:
        """Return a weight in a dtype and layout, cast now if the kept one is missing or stale."""
        key = (id(weight), dtype, layout)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.weight() is not weight:
                entry = self._entries[key] = self._new_entry(weight, key)
            elif entry.state is None or entry.state != _state_of(weight):
                self._renew(entry, weight, dtype, layout)
            return entry.cast

    def find(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
        """Return the kept cast of a weight in its own layout, if any cast of it in that dtype is kept and not stale."""
        kept = self._up_to_date(weight, (id(weight), dtype, torch.preserve_format))
        if kept is None and self._up_to_date(weight, (id(weight), dtype, PACKED)) is not None:
            return self.cast(weight, dtype)
        return kept

    def _up_to_date(self, weight: torch.Tensor, key: _Key) -> torch.Tensor | None:
        """Return the cast that is kept under a key if it is that of the weight as it is now."""
        entry = self._entries.get(key)
        if entry is None or entry.weight() is not weight or entry.state is None:
            return None
        return entry.cast if entry.state == _state_of(weight) else None

    def make_stale(self, weights: Iterable[torch.Tensor]) -> None:
        """Have the casts of these weights made again at their next use."""
        stale = {id(weight) for weight in weights}
        with self._lock:
            for (identity, *_), entry in self._entries.items():
                if identity in stale:
                    entry.state = None
            self._forget_collected()

    @contextlib.contextmanager
    def casting_by(self, casting: Casting) -> Iterator[None]:
        """Have another function cast into new memory until the context ends; what it cast is then dropped."""
        before, self._casting = self._casting, casting
        kept = dict(self._entries)
        try:
            yield
        finally:
            self._casting = before
            with self._lock:
                for key, entry in list(self._entries.items()):
                    if entry is not kept.get(key):
                        del self._entries[key]
                self._forget_collected()

    def add_user(self, user: CachedCasts) -> None:
        """Tell a collection of casts, from now on, when it must collect them anew."""
        self._users.add(user)

    def _new_entry(self, weight: torch.Tensor, key: _Key) -> _Entry:
        _watch_optimizers()
        _, dtype, layout = key
        state = _state_of(weight)
        cast = self._casting(weight, dtype, layout)
        return _Entry(weakref.ref(weight, functools.partial(self._drop, key)), state, cast)

    def _renew(self, entry: _Entry, weight: torch.Tensor, dtype: torch.dtype, layout: Layout) -> None:
        """Bring a cast up to date, in place if the weight still has its form.

        The state is that before the cast: what another thread writes meanwhile makes the cast stale again.
        """
        state = _state_of(weight)
        same_form = entry.cast.shape == weight.shape and entry.cast.device == weight.device
        if same_form:
            with torch.inference_mode(False), torch.no_grad():
                entry.cast.copy_(weight)
        else:
            entry.cast = self._casting(weight, dtype, layout)
        entry.state = state

    @hide_from_dynamo
    def _drop(self, key: _Key, reference: object) -> None:
        """Free the cast of a weight that died."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.weight() is None:
                del self._entries[key]
            self._forget_collected()

    def _forget_collected(self) -> None:
        for user in list(self._users):
            user.forget()


class CachedCasts:
    """The casts that one compiled graph reads, collected again only after a change.

    Args:
        store: where the casts are kept.
        wanted: for each cast the position of the weight among the graph's inputs, the dtype and the layout.
    """

    def __init__(self, store: WeightStore, wanted: Sequence[tuple[int, torch.dtype, Layout]]) -> None:
        self._store = store
        self._wanted = tuple(wanted)
        # Replaced as one, since several threads may call. The number counts how often to forget was asked.
        self._collected: tuple[list[Any], list[torch.Tensor]] = [], []
        self._forgotten = 0
        store.add_user(self)

    def of(self, inputs: Sequence[Any]) -> list[torch.Tensor]:
        """Return the casts of the weights among a graph's inputs."""
        weights = [inputs[position] for position, *_ in self._wanted]
        if any(weight.is_inference() for weight in weights):
            return self._collect(weights)
        seen = [self._forgotten, *((id(weight), version_of(weight), weight.data_ptr()) for weight in weights)]
        seen_before, casts = self._collected
        if seen != seen_before:
            casts = self._collect(weights)
            self._collected = seen, casts
        return casts

    def forget(self) -> None:
        """Drop what was collected, and what a thread is collecting now."""
        self._forgotten += 1
        self._collected = [], []

    def _collect(self, weights: list[torch.Tensor]) -> list[torch.Tensor]:
        return [
            self._store.cast(weight, dtype, layout)
            for weight, (_, dtype, layout) in zip(weights, self._wanted, strict=True)
        ]


def _bytes_of(cast: torch.Tensor) -> int:
    packed = packed_weight_of(cast)
    return cast.nbytes if packed is None else packed.numel() * packed.element_size()


def _state_of(weight: torch.Tensor) -> _State | None:
    """Return what changes with a weight; None for weights made in inference mode, which keep no version."""
    return None if weight.is_inference() else (version_of(weight), weight.data_ptr(), weight.shape)


WEIGHTS = WeightStore()


def refresh_weights(model: torch.nn.Module) -> None:
    """Have the casted copies of a model's weights made again, after writes that PyTorch does not count.

    These are writes through ``.data``, as in ``layer.weight.data += update`` when adapters are merged, and writes by
    other libraries to the memory of a parameter. In-place ops, ``load_state_dict`` and optimizers need no call.

    Args:
        model: the module whose parameters changed.

    Example:
        >>> model.layer.weight.data += update
        >>> xpu_amp_dynamo.refresh_weights(model)
    """
    WEIGHTS.make_stale(model.parameters())


def cached_weight_bytes() -> int:
    """Return how many bytes the casted copies of weights take that ``options={"weights": "cached"}`` keeps."""
    return WEIGHTS.bytes_held


@functools.cache
def _watch_optimizers() -> None:
    """Make casts stale after optimizer steps: fused ones do not count in the version counter, torch 2.13.0."""
    register_optimizer_step_post_hook(_after_step)


@hide_from_dynamo
def _after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    if len(WEIGHTS):
        WEIGHTS.make_stale(weight for group in optimizer.param_groups for weight in group["params"])
