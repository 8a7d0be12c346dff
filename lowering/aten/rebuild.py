"""Repeats layout ops on tensors of another dtype."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from xpu_amp_dynamo.lowering.aten.edit import (
    call_after,
    erase_unused,
    members_of,
    multiplies_by_one,
    source_of,
)
from xpu_amp_dynamo.lowering.aten.memory import Memory
from xpu_amp_dynamo.lowering.aten.ops import CONCATENATION


class Rebuilder:
    """Repeats layout ops on tensors of another dtype, each op once.

    Args:
        memory: the memories of the graph.
        source: returns what stands for a node in a dtype, None to look further up.
    """

    def __init__(self, memory: Memory, source: Callable[[fx.Node, torch.dtype], fx.Node | None]) -> None:
        self._memory = memory
        self._source = source
        self._made: dict[tuple[fx.Node, torch.dtype], fx.Node | None] = {}
        self._refused: list[fx.Node] = []

    def in_dtype(self, node: fx.Node, dtype: torch.dtype) -> fx.Node | None:
        """Return the elements of a node in a dtype: its layout ops repeated on the source in that dtype.

        None where one of them cannot be repeated, as views of dense tensors on others, or would read what the graph
        writes to, so that it might read later than the node did.
        """
        pending = [node]
        while pending:
            key = (pending[-1], dtype)
            missing = [] if key in self._made else self._missing(*key)
            if not missing:
                pending.pop()
            pending += missing
        return self._made[node, dtype]

    def erase_unused(self) -> None:
        """Erase the nodes that were made in vain."""
        made = (*self._made.values(), *self._refused)
        erase_unused(node for node in made if node is not None and not self._memory.knows(node))

    def _missing(self, node: fx.Node, dtype: torch.dtype) -> list[fx.Node]:
        """List what must be made in front of a node; make the node if there is nothing."""
        stand_in = self._source(node, dtype)
        if stand_in is not None:
            refused = self._reads_what_is_written(stand_in)
            self._refused += [stand_in] * refused
            self._made[node, dtype] = None if refused else stand_in
            return []
        missing = [element for element in _elements_of(node) if (element, dtype) not in self._made]
        if not missing:
            self._made[node, dtype] = self._repeat(node, dtype)
        return missing

    def _repeat(self, node: fx.Node, dtype: torch.dtype) -> fx.Node | None:
        elements = [self._made[element, dtype] for element in _elements_of(node)]
        if None in elements or multiplies_by_one(node):
            return None if None in elements else elements[0]
        assert callable(node.target)
        first = elements if node.target == CONCATENATION else elements[0]
        try:
            return call_after(node, node.target, (first, *node.args[1:]), like=node)
        except (RuntimeError, ValueError):  # what ops raise that refuse strides
            return None

    def _reads_what_is_written(self, node: fx.Node) -> bool:
        read = [node] if self._memory.knows(node) else node.all_input_nodes
        return any(map(self._memory.is_written, read))


def _elements_of(node: fx.Node) -> list[fx.Node]:
    """List the nodes whose elements a layout op or a concatenation holds."""
    return members_of(node) if node.target == CONCATENATION else [source_of(node)]
