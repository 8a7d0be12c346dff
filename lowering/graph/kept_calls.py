"""Finds in which calls of kept modules a node lies, by what capture notes of the modules around each node."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import fx

from xpu_amp_dynamo.compat.calls_in_graphs import ENTER_AUTOCAST, EXIT_AUTOCAST
from xpu_amp_dynamo.compat.compiled_modules import module_id
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS
from xpu_amp_dynamo.lowering.graph.values import storage_of, tensors_in, value_of
from xpu_amp_dynamo.policy.kept_modules import Kept, ModulePatterns, names_around

_ENDS_OF_REGIONS = (ENTER_AUTOCAST, EXIT_AUTOCAST)


class KeptCall(NamedTuple):
    """One call of a kept module: what stands for it in the graph, and the module."""

    key: str
    kept: Kept


def count_common(one: tuple[KeptCall, ...], other: tuple[KeptCall, ...]) -> int:
    """Return in how many calls two points of a graph lie together."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def module_names(graph: fx.Graph, tensors: Iterable[str] = ()) -> set[str]:
    """Return the names of the modules that a graph calls or holds tensors of, and of those around them.

    Args:
        graph: a graph that names modules as ``named_modules()`` does.
        tensors: qualified names of parameters and buffers.
    """
    paths = [path for node in graph.nodes for path, _ in node.meta.get("nn_module_stack", {}).values()]
    names = {*paths, *(tensor.rpartition(".")[0] for tensor in tensors)}
    return {around for name in names for around in names_around(name)}


def _calls_between(first: fx.Node, end: fx.Node | None) -> Iterator[fx.Node]:
    """Yield the calls from a node on to another, or to the end of the graph, but for ends of regions."""
    node = first
    while node is not end and node.op not in ("output", "root"):
        if node.op in CALLS and node.target not in _ENDS_OF_REGIONS:
            yield node
        node = node.next


def _call_before(node: fx.Node) -> fx.Node | None:
    """Return the last such call before a node."""
    while node.op != "root":
        node = node.prev
        if node.op in CALLS and node.target not in _ENDS_OF_REGIONS:
            return node
    return None


@dataclass(frozen=True)
class KeptModules:
    """The kept modules of the model that a graph is of.

    Args:
        patterns: which modules are kept.
        by_id: the kept modules, and those inside them, by the ``id`` of the module; None if the graph names modules
            as ``named_modules()`` does, as those of export.
        around: the calls that the whole graph lies in, its inputs too.
        frame: the call inside of these that its inputs are those of, if it is of a kept module.
        own_tensors: the storages of parameters, buffers and other tensors of each kept module, which are no inputs.
    """

    patterns: ModulePatterns = field(default_factory=ModulePatterns)
    by_id: Mapping[int, Kept] | None = None
    around: tuple[KeptCall, ...] = ()
    frame: tuple[KeptCall, ...] = ()
    own_tensors: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def calls_around(self, node: fx.Node) -> tuple[KeptCall, ...]:
        """Return the calls of kept modules that a node lies in, the outermost first.

        A module inside a kept one that no pattern names itself is part of it.
        """
        if not self.patterns or node.op not in CALLS:
            return self.around
        calls = [*self.around, *self.frame]
        for key, (path, _) in node.meta.get("nn_module_stack", {}).items():
            kept = self._kept(key, path)
            if kept is not None and (not calls or calls[-1].kept != kept):
                calls.append(KeptCall(key, kept))
        return tuple(calls)

    def calls_around_region(self, enter: fx.Node) -> tuple[KeptCall, ...]:
        """Return the calls of kept modules that a region is entered in, by the nodes at its two ends.

        Capture notes no module for what enters a region (torch 2.13.0). A region that holds a call as a whole is taken
        for one around it.
        """
        leave = next((user for user in enter.users if user.target is EXIT_AUTOCAST), None)
        inside = [self.calls_around(node) for node in _calls_between(enter.next, leave)]
        if not inside or not self.patterns:
            return self.around
        shared = inside[0][: min(count_common(inside[0], calls) for calls in inside)]
        neighbours = [_call_before(enter), None if leave is None else next(_calls_between(leave.next, None), None)]
        depths = [count_common(shared, self.calls_around(node)) for node in neighbours if node is not None]
        return shared[: max(depths, default=0)]

    def is_own(self, node: fx.Node, kept: Kept) -> bool:
        """Tell whether a node only fetches a tensor that a kept module holds itself."""
        if node.op == "get_attr":
            return str(node.target).startswith(f"{kept.module}.".removeprefix("."))
        owned = self.own_tensors.get(kept.module, frozenset())
        return node.op == "placeholder" and any(storage_of(t) in owned for t in tensors_in(value_of(node)))

    def inside(self, calls: tuple[KeptCall, ...]) -> KeptModules:
        """Return the same for a subgraph whose call lies in calls of kept modules."""
        return dataclasses.replace(self, around=calls, frame=())

    def _kept(self, key: str, path: str) -> Kept | None:
        if self.by_id is None:
            return self.patterns.kept([path])
        number = module_id(key)
        return None if number is None else self.by_id.get(number)
