"""Which values of a graph share memory, and what can tell that they do."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterable

from torch import fx

from xpu_amp_dynamo.compat.op_types import OpOverload, schema_of
from xpu_amp_dynamo.lowering.aten.ops import LAYOUT_READERS, RESHAPES
from xpu_amp_dynamo.lowering.graph.node_kind import arguments_of
from xpu_amp_dynamo.lowering.graph.values import has_value, storage_of, tensors_in, value_of

# Whose ops promise to look at values alone, but for LAYOUT_READERS; ops of other libraries may rely on strides.
NAMESPACES = ("aten", "prims")


class Memory:
    """The memories of a graph's values, as they are when this is made.

    Values share a memory where their fake tensors do or where an op returns a view of its argument. Two sources, as
    passes of Inductor put nodes in place of others without new values.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self._parents: dict[Hashable, Hashable] = {}
        # Storages are known by their address, which must not be used again while they are.
        self._values = {node: value_of(node) for node in graph.nodes}
        self._inputs: set[Hashable] = set()
        self._seen: set[Hashable] = set()
        self._written: set[Hashable] = set()
        for node in graph.nodes:
            self._join(viewed_by(node), node)
        for node in graph.nodes:
            self._inputs |= self._of([node]) if node.op in ("placeholder", "get_attr") else set()
            self._seen |= self._of(node.all_input_nodes) if sees_memory(node) else set()
            self._written |= self._of(written_by(node))

    def knows(self, node: fx.Node) -> bool:
        """Tell whether a node was in the graph when this was made."""
        return node in self._values

    def is_input(self, node: fx.Node) -> bool:
        """Tell whether a value lies in memory of an input."""
        return not self._inputs.isdisjoint(self._of([node]))

    def is_seen(self, node: fx.Node) -> bool:
        """Tell whether anything knows where a value lies: a caller, a write, an op that reads strides."""
        return not self._seen.isdisjoint(self._of([node]))

    def is_written(self, node: fx.Node) -> bool:
        """Tell whether the graph writes to a value's memory."""
        return not self._written.isdisjoint(self._of([node]))

    def _of(self, nodes: Iterable[fx.Node]) -> set[Hashable]:
        return {self._root(key) for node in nodes for key in self._keys(node)}

    def _keys(self, node: fx.Node) -> list[Hashable]:
        """List the storages of a node's tensors; a tensor without one, and a node without a value, is its own."""
        if node.op == "output" or not has_value(node):
            return [node]
        value = self._values.get(node, value_of(node))
        return [storage_of(tensor) or ("no storage", id(tensor)) for tensor in tensors_in(value)]

    def _join(self, sources: Iterable[fx.Node], node: fx.Node) -> None:
        keys = [key for each in (node, *sources) for key in self._keys(each)]
        for key in keys[1:]:
            self._parents[self._root(key)] = self._root(keys[0])

    def _root(self, key: Hashable) -> Hashable:
        while (parent := self._parents.get(key, key)) != key:
            # Halves the way up, so that long chains of views cost no more than short ones.
            self._parents[key] = self._parents.get(parent, parent)
            key = parent
        return key


def viewed_by(node: fx.Node) -> list[fx.Node]:
    """List the inputs of which a call may return views."""
    if node.op != "call_function":
        return []
    if node.target in RESHAPES or (node.target is operator.getitem and _may_view(node)):
        return node.all_input_nodes[:1]
    if not isinstance(node.target, OpOverload):
        return []
    return _arguments(node, [a.name for a in schema_of(node.target).arguments if a.alias_info is not None])


def _may_view(item: fx.Node) -> bool:
    """Tell whether an item is of a call that returns views; others are known by their values."""
    (source, *_) = item.all_input_nodes
    return bool(viewed_by(source)) or not has_value(item)


def written_by(node: fx.Node) -> list[fx.Node]:
    """List the inputs that a call may write to; calls of graphs and of kernels may write to any."""
    if not sees_memory(node) or node.op == "output":
        return []
    if not isinstance(node.target, OpOverload):
        return node.all_input_nodes
    written = (a for a in schema_of(node.target).arguments if a.alias_info is not None and a.alias_info.is_write)
    return _arguments(node, [argument.name for argument in written])


def sees_memory(node: fx.Node) -> bool:
    """Tell whether a node does more than compute new values, or views, of its inputs' values.

    It then may tell where they lie: in which memory, with which strides.
    """
    if node.op != "call_function":
        return node.op not in ("placeholder", "get_attr")
    if not isinstance(node.target, OpOverload):
        return node.target is not operator.getitem
    known = node.target.namespace in NAMESPACES and node.target not in LAYOUT_READERS
    return not known or schema_of(node.target).is_mutable


def _arguments(node: fx.Node, names: list[str]) -> list[fx.Node]:
    """List the nodes in the arguments of these names."""
    named = arguments_of(node)
    nodes: list[fx.Node] = []
    fx.map_arg([named.get(name) for name in names], nodes.append)
    return nodes
