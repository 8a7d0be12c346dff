"""Graphs that Dynamo captures of small functions, changed or lowered, and their text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from expecttest import assert_expected_inline
from torch import fx
from torch._dynamo.testing import normalize_gm

import xpu_amp_dynamo
from xpu_amp_dynamo.lowering.captured.record_values import fake_mode_of
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.report import LoweringReport

Found = TypeVar("Found")
Change = Callable[[fx.GraphModule, Sequence[Any]], Found]


def run_changed(
    change: Change[Found], function: Callable[..., Any], *args: Any, fullgraph: bool = False
) -> tuple[Any, list[Found]]:
    """Run a function whose captured graphs are changed and not compiled.

    Args:
        change: gets each graph and its example inputs, and may change the graph.
        function: what to capture.
        args: its arguments.
        fullgraph: whether a graph break is an error.

    Returns:
        What the function returned, and what ``change`` returned for each graph.
    """
    found: list[Found] = []

    def backend(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> fx.GraphModule:
        found.append(change(gm, example_inputs))
        return gm

    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=fullgraph)(*args), found


def run_lowered(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, list[fx.GraphModule]]:
    """Run a function compiled with lowering and nothing else; return its result and its lowered graphs."""

    def lower(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> fx.GraphModule:
        return xpu_amp_dynamo.lower(gm, example_inputs, **options)

    return run_changed(lower, function, *args)


def lowered_graphs(function: Callable[..., Any], *args: Any, **options: Any) -> list[fx.GraphModule]:
    """Return the lowered graphs of a function."""
    return run_lowered(function, *args, **options)[1]


def assert_lowers_to(expected: str, function: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Compare a function's one lowered graph with its golden text."""
    (gm,) = lowered_graphs(function, *args, **options)
    assert_expected_inline(body_of(gm), expected, skip=1)


def body_of(gm: fx.GraphModule) -> str:
    """Return the statements of a graph as normalised text, one a line, without copies of inputs and freeing."""
    code = normalize_gm(gm.print_readable(print_output=False, include_stride=False, include_device=False))
    lines = (line.split(";")[0].strip() for line in code.splitlines())
    kept = [line for line in lines if line and not line.startswith(("class ", "def forward", "# ", "l_"))]
    return "\n".join(kept) + "\n"


def casts_in(gm: fx.GraphModule) -> list[torch.dtype]:
    """List the dtypes that a graph's inserted casts cast to."""
    return [node.args[1] for node in gm.graph.nodes if "xpu_amp_dynamo.cast_for" in node.meta]


def calls_in(gm: fx.GraphModule) -> list[tuple[str, list[torch.dtype], torch.dtype]]:
    """List the calls of a graph: the name of each, the dtypes of the tensors that it reads, and that of its result."""
    return [
        (
            node.target if isinstance(node.target, str) else node.target.__name__,
            [_dtype_of(argument) for argument in node.all_input_nodes],
            _dtype_of(node),
        )
        for node in gm.graph.nodes
        if node.op in ("call_function", "call_method")
    ]


def context_of(gm: fx.GraphModule) -> LoweringContext:
    """Return the context of a lowering of a graph on the CPU, by the policy "xpu" in bfloat16, before any pass ran."""
    state = AutocastState(True, torch.bfloat16)
    report = LoweringReport()
    policy = xpu_amp_dynamo.Policy.named("xpu")
    return LoweringContext(policy, "cpu", state, fake_mode_of(gm), True, report, lambda gm, context: None)


def _dtype_of(node: fx.Node) -> torch.dtype:
    """Return the dtype of a node's tensor, as capture or the lowering recorded it."""
    return node.meta["example_value"].dtype
