"""The store of casted weights: each is cast once and kept until its parameter changes or dies."""

from __future__ import annotations

import atexit
import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from xpu_amp_dynamo.compat.storages import address_of_storage
from xpu_amp_dynamo.compat.tensor_watch import watch_tensors
from xpu_amp_dynamo.compat.uncounted_writes import watch_uncounted_writes
from xpu_amp_dynamo.ops.packed_linear import pack, packed_weight_of
from xpu_amp_dynamo.runtime.hide_from_dynamo import hide_from_dynamo
from xpu_amp_dynamo.runtime.kept_weight import KeptWeight, Layout, State, StoredCast
from xpu_amp_dynamo.runtime.renewal import is_renewable, renew

_Wanted = tuple[torch.Tensor, torch.dtype, Layout]
Casting = Callable[[torch.Tensor, torch.dtype, Layout], torch.Tensor]


class User(Protocol):
    """Who holds casts of a store."""

    def forget(self) -> None:
        """Drop all casts."""


def cast_weight(weight: torch.Tensor, dtype: torch.dtype, layout: Layout) -> torch.Tensor:
    """Return a weight in a dtype and layout, as a tensor that inference mode does not restrict."""
    with torch.inference_mode(False), torch.no_grad():
        if isinstance(layout, torch.memory_format):
            return weight.to(dtype, memory_format=layout)
        return pack(weight.to(dtype))


class WeightStore:
    """Casts of parameters, kept as long as these stay as they are: see :class:`KeptWeight` for what tells.

    A cast that went stale is made again in place where it can be, so that its address stays, as CUDA graphs want it.
    Casts are freed with their parameters. As long as the store holds any, it watches the parameters of the process.

    Args:
        casting: casts a weight into new memory.
    """

    def __init__(self, casting: Casting = cast_weight) -> None:
        self._casting = casting
        # By the identity of the weight, and by the number of its storage.
        self._weights: dict[int, KeptWeight] = {}
        self._storages: dict[int | None, KeptWeight] = {}
        self._lock = threading.RLock()
        self._users: weakref.WeakSet[User] = weakref.WeakSet()
        self._stop_watching: list[Callable[[], None]] = []
        # Another one after each change that a version counter does not tell of, and whenever casts are dropped.
        self.epoch = object()

    def __len__(self) -> int:
        return sum(len(kept.casts) for kept in list(self._weights.values()))

    def bytes_held(self, weights: Iterable[torch.Tensor] | None = None) -> int:
        """Return the bytes of the casts of some weights, of all if None."""
        found = [cast.tensor for kept in self._kept(weights) for cast in list(kept.casts.values())]
        return sum(_bytes_of(cast) for cast in found)

    def kept(self, weight: torch.Tensor) -> KeptWeight | None:
        """Return what is known of a weight, None if no cast of it is kept."""
        found = self._weights.get(id(weight))
        return found if found is not None and found.reference() is weight else None

    def cast(self, weight: torch.Tensor, dtype: torch.dtype, layout: Layout = torch.preserve_format) -> StoredCast:
        """Return a weight in a dtype and layout, cast now if the kept one is missing or stale."""
        return self.find(weight, dtype, layout) or self._renew([(weight, dtype, layout)])[0]

    def casts(self, wanted: Sequence[_Wanted]) -> list[StoredCast]:
        """Return weights in dtypes and layouts, as :meth:`cast`; those that went stale are made again together."""
        keys = [(id(weight), dtype, layout) for weight, dtype, layout in wanted]
        found = {key: self.find(*each) for key, each in zip(keys, wanted, strict=True)}
        stale = {key: each for key, each in zip(keys, wanted, strict=True) if found[key] is None}
        renewed = dict(zip(stale, self._renew(list(stale.values())), strict=True)) if stale else {}
        return [found[key] or renewed[key] for key in keys]

    def find(
        self, weight: torch.Tensor, dtype: torch.dtype, layout: Layout = torch.preserve_format
    ) -> StoredCast | None:
        """Return the kept cast of a weight, None if it is missing or stale."""
        kept = self.kept(weight)
        return None if kept is None else kept.up_to_date(weight, dtype, layout)

    def observe(self, weight: torch.Tensor) -> tuple[KeptWeight, State | None]:
        """Return what is known of a weight, from now on, and the state that it is in."""
        with self._lock:
            kept = self.kept(weight)
            if kept is None:
                self._watch()
                kept = self._weights[id(weight)] = KeptWeight(weight, functools.partial(self._drop, id(weight)))
            self._storages.pop(kept.storage, None)
            state = kept.new_state(weight)
            self._storages[kept.storage] = kept
            return kept, state

    def notice_writes(self, tensors: Iterable[torch.Tensor] | None) -> None:
        """Have casts made again at their next use: of weights in the memory of some tensors, of all if None."""
        for kept in self._kept(None) if tensors is None else map(self._kept_in_memory_of, tensors):
            if kept is not None:
                kept.notice_change()
                self.epoch = object()

    def release(self, weights: Iterable[torch.Tensor] | None = None) -> None:
        """Free the casts of some weights, of all if None."""
        with self._lock:
            for kept in self._kept(weights):
                self._remove(kept)
            self._forget_dropped()

    @contextlib.contextmanager
    def casting_by(self, casting: Casting) -> Iterator[None]:
        """Have another function cast into new memory until the context ends; all casts are dropped before and after."""
        self.release()
        before, self._casting = self._casting, casting
        try:
            yield
        finally:
            self._casting = before
            self.release()

    def add_user(self, user: User) -> None:
        """Tell a holder of casts, from now on, when it must drop them."""
        self._users.add(user)

    def _kept_in_memory_of(self, tensor: torch.Tensor) -> KeptWeight | None:
        return self.kept(tensor) or self._storages.get(address_of_storage(tensor))

    def _kept(self, weights: Iterable[torch.Tensor] | None) -> list[KeptWeight]:
        if weights is None:
            return list(self._weights.values())
        return [kept for kept in map(self.kept, weights) if kept is not None]

    def _renew(self, stale: Sequence[_Wanted]) -> list[StoredCast]:
        """Bring casts up to date, in place where the weight still has its form and nobody else holds the cast.

        Those of one device and dtype are written together: a kernel each would take longer than it runs. The state of a
        weight is that before the cast: what another thread writes meanwhile makes the cast stale again.
        """
        with self._lock:
            renewed: list[tuple[KeptWeight, StoredCast]] = []
            in_place: dict[tuple[torch.device, torch.dtype], list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for weight, dtype, layout in stale:
                kept, state = self.observe(weight)
                before = kept.casts.get((dtype, layout))
                if before is not None and is_renewable(before.tensor, weight, layout):
                    tensor = before.tensor
                    in_place.setdefault((weight.device, dtype), []).append((tensor, weight))
                else:
                    tensor = self._casting(weight, dtype, layout)
                renewed.append((kept, StoredCast(tensor, state)))
            for pairs in in_place.values():
                renew(*zip(*pairs, strict=True))
            for (_, dtype, layout), (kept, cast) in zip(stale, renewed, strict=True):
                kept.casts[dtype, layout] = cast
            return [cast for _, cast in renewed]

    @hide_from_dynamo
    def _drop(self, identity: int, reference: weakref.ref[torch.Tensor]) -> None:
        """Free the casts of a weight that died."""
        with self._lock:
            kept = self._weights.get(identity)
            if kept is not None and kept.reference is reference:
                self._remove(kept)
            self._forget_dropped()

    def _remove(self, kept: KeptWeight) -> None:
        self._weights.pop(kept.identity, None)
        if self._storages.get(kept.storage) is kept:
            del self._storages[kept.storage]

    def _forget_dropped(self) -> None:
        self.epoch = object()
        for user in list(self._users):
            user.forget()
        if not self._weights:
            atexit.unregister(self.release)
            while self._stop_watching:
                self._stop_watching.pop()()

    def _watch(self) -> None:
        """Watch for what version counters do not tell of: ``.data``, collectives, optimizers."""
        if not self._stop_watching:
            # Later, as modules are taken apart, neither PyTorch's nor these hold what ending a watch takes.
            atexit.register(self.release)
            self._stop_watching = [
                register_optimizer_step_post_hook(self._after_step).remove,
                watch_uncounted_writes(self.notice_writes),
                watch_tensors(self._on_data, self._on_swap),
            ]

    @hide_from_dynamo
    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        weights = (weight for group in optimizer.param_groups for weight in group["params"])
        self.notice_writes(weight for weight in weights if self.kept(weight) is not None)

    def _on_data(self, tensor: torch.Tensor) -> None:
        self.notice_writes([tensor])

    def _on_swap(self, weight: torch.Tensor) -> None:
        self.release([weight])


def _bytes_of(cast: torch.Tensor) -> int:
    packed = packed_weight_of(cast)
    return cast.nbytes if packed is None else packed.numel() * packed.element_size()


WEIGHTS = WeightStore()


def refresh_weights(model: torch.nn.Module | None = None) -> None:
    """Have the casted copies of a model's weights made again, after writes that nothing tells of.

    These are writes to the memory of a parameter by other processes, by kernels launched by hand, and through a storage
    or a NumPy array that was made, written and dropped between two calls. All else is noticed: in-place ops, ``.data``,
    ``load_state_dict``, optimizers.

    Args:
        model: the module whose parameters changed; None means all of the process.

    Raises:
        TypeError: ``model`` is something else.

    Example:
        >>> model.layer.weight.detach().numpy()[:] = 0
        >>> xpu_amp_dynamo.refresh_weights(model)
    """
    WEIGHTS.notice_writes(_weights_of(model))


def cached_weight_bytes(model: torch.nn.Module | None = None) -> int:
    """Return how many bytes the casted copies of weights take that compiled graphs and eager regions keep.

    Args:
        model: the module whose parameters' copies count; None means all of the process.

    Raises:
        TypeError: ``model`` is something else.
    """
    return WEIGHTS.bytes_held(_weights_of(model))


def release_weights(model: torch.nn.Module | None = None) -> None:
    """Free the casted copies of weights; those that are needed again are made again.

    Args:
        model: the module whose parameters' copies are freed; None means all of the process.

    Raises:
        TypeError: ``model`` is something else.
    """
    WEIGHTS.release(_weights_of(model))


def _weights_of(model: object) -> Iterable[torch.Tensor] | None:
    if model is None:
        return None
    if isinstance(model, torch.nn.Module):
        return model.parameters()
    given = f"the class {model.__name__}" if isinstance(model, type) else f"an object of type {type(model).__name__}"
    raise TypeError(f"a torch.nn.Module is needed, not {given}; no argument means all weights of the process")
