"""Compares a lowered graph with float32, node by node: what each adds to the error, and the error so far."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.pytree import leaves_of, map_tensors, with_leaves
from xpu_amp_dynamo.lowering.graph.casting import is_inserted_cast
from xpu_amp_dynamo.lowering.graph.tags import tags_of
from xpu_amp_dynamo.lowering.graph.values import storage_of, tensors_in, value_of
from xpu_amp_dynamo.lowering.graph.writes import mutated_inputs, written_storages
from xpu_amp_dynamo.policy.cast_rule import LOWER_DTYPES


@dataclass(frozen=True)
class NodeError:
    """How far a call or a cast is from float32. Errors are norms of differences, relative to the norm in float32.

    Args:
        own: the error that it gives on what float32 computed for its inputs.
        accumulated: its error in the lowered graph.
        largest: the largest finite magnitude that it gives in the lowered graph.
        overflowed: whether it gives an infinity or NaN where float32 gives a number.
    """

    own: float
    accumulated: float
    largest: float
    overflowed: bool


def compare_with_float32(gm: fx.GraphModule, inputs: Sequence[Any]) -> dict[str, NodeError]:
    """Run a lowered graph beside itself without casts, and return the errors of its nodes by tag.

    What either run draws of random numbers is the same. What the graph writes to is copied first, so that the inputs
    stay as they are.

    Args:
        gm: a lowered graph, described so that its nodes have tags.
        inputs: a value for each placeholder.
    """
    written = written_storages(gm.graph.nodes)
    given = iter(inputs)
    runs = _Runs(gm)
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            runs.start(node, next(given), copied=not written.isdisjoint(map(storage_of, tensors_in(value_of(node)))))
        elif node.op != "output":
            runs.run(node)
    return runs.errors


class _Runs:
    """A graph run in float32 and as lowered, side by side."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.interpreter = fx.Interpreter(gm)
        self.exact: dict[fx.Node, Any] = {}
        self.lowered: dict[fx.Node, Any] = {}
        self.errors: dict[str, NodeError] = {}
        nodes = list(gm.graph.nodes)
        last_user = {used: node for node in nodes for used in node.all_input_nodes}
        self.dead_after: dict[fx.Node, list[fx.Node]] = {node: [] for node in nodes}
        for used, node in last_user.items():
            self.dead_after[node].append(used)

    def start(self, node: fx.Node, value: Any, copied: bool) -> None:
        """Give a placeholder its value in both runs."""
        own = map_tensors(lambda t: t.detach().clone() if copied else t.detach(), value)
        self.lowered[node] = own
        exact = _in_float32(own)
        self.exact[node] = map_tensors(torch.clone, exact) if copied else exact

    def run(self, node: fx.Node) -> None:
        """Run a node in both runs, and once more on the inputs of the exact one."""
        if node.op == "get_attr":
            value = self.interpreter.get_attr(node.target, (), {})
            self.lowered[node], self.exact[node] = value, _without_casts(value)
        else:
            on_exact = self._on_exact_inputs(node)
            alone = _with_same_random_numbers(lambda: self._call(node, on_exact))
            exact = _with_same_random_numbers(lambda: self._exactly(node))
            self.lowered[node] = self._call(node, self.lowered)
            self.exact[node] = _in_float32(exact)
            self._compare(node, alone)
        for dead in self.dead_after[node]:
            self.exact.pop(dead)
            self.lowered.pop(dead)

    def _exactly(self, node: fx.Node) -> Any:
        return self.exact[node.all_input_nodes[0]] if is_inserted_cast(node) else self._call(node, self.exact)

    def _call(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        return getattr(self.interpreter, node.op)(node.target, args, kwargs)

    def _on_exact_inputs(self, node: fx.Node) -> dict[fx.Node, Any]:
        """Return the inputs of the exact run in the dtypes that the lowered graph reads."""
        writes = bool(mutated_inputs(node))
        return {n: _like(self.exact[n], self.lowered[n], copied=writes) for n in node.all_input_nodes}

    def _compare(self, node: fx.Node, alone: Any) -> None:
        """Note the errors of a node that gives tensors of numbers."""
        exact, lowered, own = (_floats(value) for value in (self.exact[node], self.lowered[node], alone))
        if tags_of(node) and exact:
            largest = max(float(_finite(t).abs().max()) if _finite(t).numel() else 0.0 for t in lowered)
            overflowed = any(bool((e.isfinite() & ~t.isfinite()).any()) for e, t in zip(exact, lowered, strict=True))
            self.errors[tags_of(node)[0]] = NodeError(_error(own, exact), _error(lowered, exact), largest, overflowed)


def _in_float32(value: Any) -> Any:
    """Return a value with tensors of lower precision in float32, others as they are."""
    return map_tensors(lambda t: t.float() if t.dtype in LOWER_DTYPES else t, value)


def _like(value: Any, other: Any, copied: bool) -> Any:
    """Return a value in the dtypes of another one."""
    if isinstance(value, fx.GraphModule):
        return other

    def convert(leaf: Any, like: Any) -> Any:
        return leaf.to(like.dtype, copy=copied) if isinstance(leaf, torch.Tensor) else leaf

    return with_leaves(value, map(convert, leaves_of(value), leaves_of(other)))


def _without_casts(value: Any) -> Any:
    """Return a subgraph without the casts of the lowering, any other value in float32."""
    if not isinstance(value, fx.GraphModule):
        return _in_float32(value)
    subgraph = copy.deepcopy(value)
    for node in list(subgraph.graph.nodes):
        if is_inserted_cast(node):
            node.replace_all_uses_with(node.all_input_nodes[0])
            subgraph.graph.erase_node(node)
        elif node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            setattr(
                subgraph.get_submodule(owner), name, _without_casts(fx.Interpreter(subgraph).fetch_attr(node.target))
            )
    subgraph.recompile()
    return subgraph


def _with_same_random_numbers(run: Callable[[], Any]) -> Any:
    """Run something, and leave the generators of random numbers as they were."""
    with torch.random.fork_rng(device_type=_accelerator(), enabled=True):
        return run()


def _accelerator() -> str:
    """Return the device type whose random numbers count beside the CPU's; CUDA's, which are none, if there is none."""
    accelerator = torch.accelerator.current_accelerator()
    return accelerator.type if accelerator is not None else "cuda"


def _floats(value: Any) -> list[torch.Tensor]:
    return [t.detach().double() for t in tensors_in(value) if t.is_floating_point()]


def _finite(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[tensor.isfinite()]


def _error(values: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> float:
    """Return the norm of a difference over what is finite in both, relative to the exact norm."""
    pairs = [(v, e, v.isfinite() & e.isfinite()) for v, e in zip(values, exact, strict=True)]
    difference = sum(float((v - e)[both].norm() ** 2) for v, e, both in pairs) ** 0.5
    norm = sum(float(e[both].norm() ** 2) for _, e, both in pairs) ** 0.5
    return difference / norm if norm else difference
