"""Checks that passes leave what callers and Inductor rely on: values of nodes, layouts of outputs, shared memory.

A graph is run on fake tensors before and after; what a pass claims is not believed. Calls of graphs, kernels and ops of
other libraries are not run again: they keep their recorded values, each in memory of its own. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.utils import _pytree as pytree

from xpu_amp_dynamo.errors import LoweringError
from xpu_amp_dynamo.lowering.aten.memory import NAMESPACES
from xpu_amp_dynamo.lowering.aten.replace import MAKING_SYMBOLS
from xpu_amp_dynamo.lowering.graph.values import has_value, storage_of, tensors_in, value_of

Pass = Callable[[fx.Graph], bool]
Layout = tuple[torch.dtype, tuple[int | torch.SymInt, ...]] | None


@dataclass(frozen=True)
class Outline:
    """What may not change in a graph.

    Args:
        layouts: dtype, sizes, strides and offset of each output.
        sharing: for each input and output the first of them that shares its memory.
        untrue: the nodes whose recorded values already differed from those of a run.
    """

    layouts: tuple[Layout, ...]
    sharing: tuple[int, ...]
    untrue: frozenset[fx.Node]


def run_verified(passes: Iterable[Pass], graph: fx.Graph) -> bool:
    """Run passes over a graph and verify what they leave; tell whether any changed it.

    Raises:
        LoweringError: a pass broke a promise; the message names the passes that ran and the node.
    """
    before = outline_of(graph)
    changed = [run.__name__ for run in passes if run(graph)]
    if changed:
        verify(graph, before, ", ".join(changed))
    return bool(changed)


def verify(graph: fx.Graph, before: Outline, name: str) -> None:
    """Check that a graph is well formed and has the outline that it had before.

    Raises:
        LoweringError: the graph is not well formed, a node's recorded value is not what it computes, or an output has
            another layout or shares other memory. The message names the node and ``name``.
    """
    try:
        graph.lint()
    except RuntimeError as error:
        raise LoweringError(_message(name, "the graph", f"is not well formed: {error}")) from error
    after = outline_of(graph)
    for end, is_shared, was_shared in zip(_ends(graph), after.sharing, before.sharing, strict=True):
        if is_shared != was_shared:
            raise LoweringError(_message(name, end, "shares other memory than before"))
    for output, layout, previous in zip(_outputs(graph), after.layouts, before.layouts, strict=True):
        if _differ(layout, previous):
            raise LoweringError(_message(name, output, f"was {previous} and is {layout}"))
    for node in after.untrue - before.untrue:
        raise LoweringError(_message(name, node, "computes another value than recorded"))


def _message(name: str, node: Any, problem: str) -> str:
    text = node.format_node() if isinstance(node, fx.Node) else node
    return f"after {name}, {text} {problem}; this is a bug of xpu_amp_dynamo"


def outline_of(graph: fx.Graph) -> Outline:
    """Run a graph on fake tensors and return what may not change in it."""
    values = _run(graph)
    ends = [values.get(end) for end in _ends(graph)]
    memories = [storage_of(end) if isinstance(end, torch.Tensor) else None for end in ends]
    first: dict[Any, int] = {}
    sharing = tuple(first.setdefault(memory or ("none", i), i) for i, memory in enumerate(memories))
    layouts = tuple(_layout_of(values.get(output)) for output in _outputs(graph))
    return Outline(layouts, sharing, frozenset(n for n in values if has_value(n) and _is_untrue(n, values[n])))


def _outputs(graph: fx.Graph) -> list[Any]:
    (output,) = graph.find_nodes(op="output")
    return pytree.tree_leaves(output.args)


def _ends(graph: fx.Graph) -> list[Any]:
    """List the inputs and the outputs of a graph."""
    return [*graph.find_nodes(op="placeholder"), *_outputs(graph)]


def _run(graph: fx.Graph) -> dict[Any, Any]:
    """Return what the nodes compute, of new memory for each input."""
    values: dict[Any, Any] = {}
    fake_mode = detect_fake_mode([t for node in graph.nodes for t in tensors_in(value_of(node))])
    if fake_mode is None:
        return values
    with fake_mode, enable_python_dispatcher(), torch.no_grad():
        for node in graph.nodes:
            if node.op != "output":
                values[node] = _call(node, values) if _can_run(node, values) else _anew(value_of(node))
    return values


def _can_run(node: fx.Node, values: dict[Any, Any]) -> bool:
    if node.op != "call_function" or any(values[source] is None for source in node.all_input_nodes):
        return False
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target.namespace in NAMESPACES and MAKING_SYMBOLS.isdisjoint(node.target.tags)
    return not isinstance(node.target, torch._ops.OperatorBase)


def _call(node: fx.Node, values: dict[Any, Any]) -> Any:
    assert callable(node.target)
    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
    return node.target(*args, **kwargs)


def _anew(value: Any) -> Any:
    """Return tensors like the recorded ones in memory of their own."""
    return pytree.tree_map_only(torch.Tensor, _new_like, value)


def _new_like(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.layout is not torch.strided:
        return tensor.clone()
    offset = tensor.storage_offset()
    if statically_known_true(offset == 0):
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)
    memory = torch.empty(tensor.untyped_storage().nbytes() // tensor.itemsize, dtype=tensor.dtype, device=tensor.device)
    return memory.as_strided(tensor.shape, tensor.stride(), offset)


def _is_untrue(node: fx.Node, value: Any) -> bool:
    """Tell whether a node's recorded tensors surely have other layouts than those that it computes."""
    recorded, computed = tensors_in(value_of(node)), tensors_in(value)
    return len(recorded) != len(computed) or any(map(_differ, map(_layout_of, recorded), map(_layout_of, computed)))


def _layout_of(value: Any) -> Layout:
    """Return a tensor's dtype, then its sizes, strides and offset; None for what has none."""
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return None
    return value.dtype, (*value.shape, *value.stride(), value.storage_offset())


def _differ(one: Layout, other: Layout) -> bool:
    """Tell whether two layouts surely differ."""
    if one is None or other is None:
        return one is not other
    pairs = zip(one[1], other[1], strict=False)
    return (
        one[0] is not other[0] or len(one[1]) != len(other[1]) or any(statically_known_true(a != b) for a, b in pairs)
    )
