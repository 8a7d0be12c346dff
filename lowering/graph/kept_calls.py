"""Finds in which calls of kept modules a node lies, by what capture notes of the modules around each node."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import fx

from xpu_amp_dynamo.compat.compiled_modules import module_id
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS
from xpu_amp_dynamo.lowering.graph.values import storage_of, tensors_in, value_of
from xpu_amp_dynamo.policy.kept_modules import Kept, ModulePatterns, names_around


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
