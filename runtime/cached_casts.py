"""The kept casts that one compiled graph reads: checked at each call, collected again after a change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from xpu_amp_dynamo.compat.storages import LONE, StorageWeakRef, holders_of
from xpu_amp_dynamo.compat.tensors import version_of
from xpu_amp_dynamo.runtime.kept_weight import Layout
from xpu_amp_dynamo.runtime.weight_store import WeightStore


class _Collection(NamedTuple):
    """Casts, and what stays as it is for as long as they are those of the weights as these are."""

    epoch: object
    identities: list[int]
    casts: list[torch.Tensor]
    # Which of the weights tell whether they change, the others being cast anew at each call, and what they tell.
    sure: list[int]
    unsure: list[int]
    versions: list[int]
    storages: list[StorageWeakRef]
    addresses: list[int]


_NOTHING = _Collection(None, [], [], [], [], [], [], [])


class CachedCasts:
    """The casts that one compiled graph reads.

    Args:
        store: where the casts are kept.
        wanted: for each cast the position of the weight among the graph's inputs, the dtype and the layout.
    """

    def __init__(self, store: WeightStore, wanted: Sequence[tuple[int, torch.dtype, Layout]]) -> None:
        self._store = store
        self._wanted = tuple(wanted)
        # Replaced as one, since several threads may call.
        self._collected = _NOTHING
        store.add_user(self)

    def of(self, inputs: Sequence[Any]) -> list[torch.Tensor]:
        """Return the casts of the weights among a graph's inputs."""
        weights = [inputs[position] for position, *_ in self._wanted]
        collected = self._collected
        if not self._holds(collected, weights):
            return self._collect(weights)
        return self._with_unsure(collected, weights) if collected.unsure else collected.casts

    def forget(self) -> None:
        """Drop all casts."""
        self._collected = _NOTHING

    # This runs for each call of a compiled graph: no function of Python's runs for each of the weights.
    def _holds(self, collected: _Collection, weights: list[torch.Tensor]) -> bool:
        """Tell whether casts that were collected are those of the weights as they are."""
        sure = [weights[i] for i in collected.sure] if collected.unsure else weights
        return (
            collected.epoch is self._store.epoch
            and collected.identities == list(map(id, weights))
            and collected.versions == list(map(version_of, sure))
            and [LONE] * len(sure) == list(map(holders_of, collected.addresses))
        )

    def _collect(self, weights: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the casts from the store, and keep them for the next call unless some are dropped meanwhile."""
        epoch = self._store.epoch
        wanted = [(weight, dtype, layout) for weight, (_, dtype, layout) in zip(weights, self._wanted, strict=True)]
        casts = self._store.casts(wanted)
        states = {i: cast.state for i, cast in enumerate(casts) if cast.state is not None}
        storages = [storage for _, _, storage in states.values()]
        collected = _Collection(
            epoch,
            list(map(id, weights)),
            [cast.tensor for cast in casts],
            list(states),
            [i for i in range(len(casts)) if i not in states],
            [version for _, version, _ in states.values()],
            storages,
            [storage.cdata for storage in storages],
        )
        if epoch is self._store.epoch:
            self._collected = collected
        return collected.casts

    def _with_unsure(self, collected: _Collection, weights: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the casts with those made anew of which nothing tells whether they changed."""
        casts = list(collected.casts)
        for i in collected.unsure:
            _, dtype, layout = self._wanted[i]
            cast = self._store.cast(weights[i], dtype, layout)
            casts[i] = cast.tensor
            if cast.state is not None:
                self._collected = _NOTHING
        return casts
