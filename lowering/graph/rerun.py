"""Computes anew, on fake tensors, what the nodes of a graph give and which of its ends share memory.

So verifiers need not believe what passes recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from xpu_amp_dynamo.compat.pytree import leaves_of, map_tensors
from xpu_amp_dynamo.compat.tensors import wraps_tensors
from xpu_amp_dynamo.lowering.graph.values import storage_of, value_of

Values = dict[fx.Node, Any]


def rerun(graph: fx.Graph, call: Callable[[fx.Node, Values], Any], can_run: Callable[[fx.Node], bool]) -> Values:
    """Return what the nodes compute, of new memory for each input. Must run inside the graph's fake tensor mode.

    Args:
        graph: any graph.
        call: returns what a call gives, given the values of all nodes before it.
        can_run: tells of nodes whether they may run again. Others keep their recorded values, each in memory of its
            own, as do those of which an input has no value.
    """
    values: Values = {}
    with torch.no_grad():
        for node in graph.nodes:
            if node.op != "output":
                known = all(values[source] is not None for source in node.all_input_nodes)
                values[node] = call(node, values) if known and can_run(node) else anew(value_of(node))
    return values


def anew(value: Any) -> Any:
    """Return tensors like the recorded ones in memory of their own."""
    return map_tensors(_new_like, value)


def outputs_of(graph: fx.Graph) -> list[Any]:
    """List what a graph returns: nodes and constants."""
    return leaves_of(graph.output_node().args)


def ends_of(graph: fx.Graph) -> list[Any]:
    """List the inputs and the outputs of a graph."""
    return [*graph.find_nodes(op="placeholder"), *outputs_of(graph)]


def memories_of(values: Iterable[Any]) -> list[int | None]:
    """Return what identifies the memory of each value; None for what has none."""
    return [storage_of(value) if isinstance(value, torch.Tensor) else None for value in values]


def sharing_of(memories: Sequence[int | None]) -> tuple[int, ...]:
    """Return for each memory the position of the first that is the same, its own if none before it is."""
    first: dict[Any, int] = {}
    return tuple(first.setdefault(memory or ("none", i), i) for i, memory in enumerate(memories))


def newly_shared(before: Sequence[int | None], after: Sequence[int | None], inputs: int) -> tuple[int, int] | None:
    """Return the first two ends of a graph that share a memory and did not before; None if there are none.

    Args:
        before: the memories of inputs and outputs then; None of ends of which it is not known.
        after: those now.
        inputs: how many of the ends are inputs. What these share with each other is the caller's.
    """
    first: dict[int, int] = {}
    for end, (was, memory) in enumerate(zip(before, after, strict=True)):
        if was is None or memory is None:
            continue
        other = first.setdefault(memory, end)
        if end >= inputs and was != before[other]:
            return other, end
    return None


def _new_like(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout is not torch.strided or wraps_tensors(tensor):
        return tensor.clone()
    offset = tensor.storage_offset()
    if statically_known_true(offset == 0):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    memory = torch.empty(tensor.untyped_storage().nbytes() // tensor.itemsize, dtype=tensor.dtype, device=tensor.device)
    return memory.as_strided(tensor.shape, tensor.stride(), offset)
