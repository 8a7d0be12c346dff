"""Collects what happens inside a context, in any thread, for whoever asks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Collector(Generic[Item]):
    """Hands items to all lists that collect them now."""

    def __init__(self) -> None:
        self._lists: list[list[Item]] = []

    def add(self, items: Iterable[Item]) -> None:
        """Append items to every list that collects."""
        added = list(items)
        for collected in self._lists:
            collected.extend(added)

    @contextlib.contextmanager
    def collect(self) -> Iterator[list[Item]]:
        """Yield a list to which items are appended until the context ends."""
        collected: list[Item] = []
        self._lists.append(collected)
        try:
            yield collected
        finally:
            self._lists = [other for other in self._lists if other is not collected]
