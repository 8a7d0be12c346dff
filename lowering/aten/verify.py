"""Checks that passes leave what callers and Inductor rely on: values of nodes, layouts of outputs, shared memory.

Thoroughly, a graph is run on fake tensors before and after; what a pass claims is not believed. Calls of graphs,
kernels and ops of other libraries are not run again: they keep their recorded values, each in memory of its own. Else
only the recorded layouts of the outputs are compared. Changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from xpu_amp_dynamo.compat.fake_tensors import mode_in_use, with_python_kernels
from xpu_amp_dynamo.compat.op_types import OperatorBase, OpOverload
from xpu_amp_dynamo.errors import LoweringError, broken_promise
from xpu_amp_dynamo.lowering.aten.memory import NAMESPACES
from xpu_amp_dynamo.lowering.aten.replace import MAKING_SYMBOLS
from xpu_amp_dynamo.lowering.graph.rerun import Values, ends_of, memories_of, outputs_of, rerun, sharing_of
from xpu_amp_dynamo.lowering.graph.values import has_value, tensors_in, value_of

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


class AtenVerifier:
    """Checks an ATen graph against what it was when this was made.

    Args:
        graph: the graph.
        thorough: whether it will be checked thoroughly.
    """

    def __init__(self, graph: fx.Graph, thorough: bool) -> None:
        self._graph = graph
        self._layouts = _recorded_layouts(graph)
        self._outline = outline_of(graph) if thorough else None

    def check(self, passes: str) -> None:
        """Check that the graph is well formed and its outputs are recorded as laid out as they were.

        Raises:
            LoweringError: they are not; the message names the passes and the node.
        """
        _check_form(self._graph, passes)
        _check_layouts(self._graph, _recorded_layouts(self._graph), self._layouts, passes)

    def check_thoroughly(self, passes: str) -> None:
        """Check that the graph has the outline that it had, see :func:`verify`."""
        assert self._outline is not None
        verify(self._graph, self._outline, passes)


def verify(graph: fx.Graph, before: Outline, name: str) -> None:
    """Check that a graph is well formed and has the outline that it had before.

    Raises:
        LoweringError: the graph is not well formed, a node's recorded value is not what it computes, or an output has
            another layout or shares other memory. The message names the node and ``name``.
    """
    _check_form(graph, name)
    after = outline_of(graph)
    for end, is_shared, was_shared in zip(ends_of(graph), after.sharing, before.sharing, strict=True):
        if is_shared != was_shared:
            raise _broken(name, end, "shares other memory than before")
    _check_layouts(graph, after.layouts, before.layouts, name)
    for node in after.untrue - before.untrue:
        raise _broken(name, node, "computes another value than recorded")


def _check_form(graph: fx.Graph, name: str) -> None:
    try:
        graph.lint()
    except RuntimeError as error:
        raise _broken(name, "the graph", f"is not well formed: {error}") from error


def _check_layouts(graph: fx.Graph, layouts: tuple[Layout, ...], before: tuple[Layout, ...], name: str) -> None:
    for output, layout, previous in zip(outputs_of(graph), layouts, before, strict=True):
        if _differ(layout, previous):
            raise _broken(name, output, f"was {previous} and is {layout}")


def _broken(name: str, node: Any, problem: str) -> LoweringError:
    text = node.format_node() if isinstance(node, fx.Node) else node
    return broken_promise(f"after {name}, {text} {problem}")


def outline_of(graph: fx.Graph) -> Outline:
    """Run a graph on fake tensors and return what may not change in it."""
    values = _run(graph)
    sharing = sharing_of(memories_of(values.get(end) for end in ends_of(graph)))
    layouts = tuple(_layout_of(values.get(output)) for output in outputs_of(graph))
    return Outline(layouts, sharing, frozenset(n for n in values if has_value(n) and _is_untrue(n, values[n])))


def _recorded_layouts(graph: fx.Graph) -> tuple[Layout, ...]:
    """Return the layouts that the outputs have by their recorded values."""
    return tuple(_layout_of(value_of(n)) if isinstance(n, fx.Node) else None for n in outputs_of(graph))


def _run(graph: fx.Graph) -> Values:
    """Return what the nodes compute, of new memory for each input."""
    fake_mode = mode_in_use([t for node in graph.nodes for t in tensors_in(value_of(node))])
    if fake_mode is None:
        return {}
    with fake_mode, with_python_kernels():
        return rerun(graph, _call, _can_run)


def _can_run(node: fx.Node) -> bool:
    if node.op != "call_function":
        return False
    if isinstance(node.target, OpOverload):
        return node.target.namespace in NAMESPACES and MAKING_SYMBOLS.isdisjoint(node.target.tags)
    return not isinstance(node.target, OperatorBase)


def _call(node: fx.Node, values: Values) -> Any:
    assert callable(node.target)
    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
    return node.target(*args, **kwargs)


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
