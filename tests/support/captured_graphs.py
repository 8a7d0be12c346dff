"""Captures programs with Dynamo and shows their lowered graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._dynamo.testing import normalize_gm

import xpu_amp_dynamo


def lowered_graphs(function: Callable[..., Any], *args: Any, **options: Any) -> list[fx.GraphModule]:
    """Run a function compiled with lowering and nothing else; return its lowered graphs."""
    graphs: list[fx.GraphModule] = []

    def backend(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> fx.GraphModule:
        graphs.append(xpu_amp_dynamo.lower(gm, example_inputs, **options))
        return gm

    torch._dynamo.reset()
    torch.compile(function, backend=backend)(*args)
    return graphs


def lowered_text(function: Callable[..., Any], *args: Any, **options: Any) -> str:
    """Return the body of a function's one lowered graph as normalised text, without names of freed values."""
    (gm,) = lowered_graphs(function, *args, **options)
    return body_of(gm)


def body_of(gm: fx.GraphModule) -> str:
    """Return the statements of a graph, one a line, without the copies of its inputs and the freeing of values."""
    code = normalize_gm(gm.print_readable(print_output=False, include_stride=False, include_device=False))
    lines = (line.split(";")[0].strip() for line in code.splitlines())
    kept = [line for line in lines if line and not line.startswith(("class ", "def forward", "# ", "l_"))]
    return "\n".join(kept) + "\n"


def casts_in(gm: fx.GraphModule) -> list[torch.dtype]:
    """List the dtypes that a graph's inserted casts cast to."""
    return [node.args[1] for node in gm.graph.nodes if "xpu_amp_dynamo.cast_for" in node.meta]
