"""ATen graphs of small functions, and their text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from xpu_amp_dynamo.lowering.aten.verify import outline_of, verify
from xpu_amp_dynamo.lowering.pipeline import AtenPass

convert = torch.ops.prims.convert_element_type.default
BFLOAT16, FLOAT16, FLOAT32 = torch.bfloat16, torch.float16, torch.float32


def graph_of(
    function: Callable[..., Any],
    *shapes: Sequence[int],
    dtypes: Sequence[torch.dtype] = (),
    device: str = "cpu",
) -> fx.GraphModule:
    """Return the ATen graph of a function, traced on fake tensors of these shapes and dtypes, float32 by default."""
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True):
        dtypes = dtypes or [FLOAT32] * len(shapes)
        inputs = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in zip(shapes, dtypes, strict=True)]
        return make_fx(function)(*inputs)


def symbolic_graph_of(function: Callable[..., Any], *shapes: Sequence[int]) -> fx.GraphModule:
    """Return the ATen graph of a function of float32 tensors whose sizes are symbols."""
    return make_fx(function, tracing_mode="symbolic")(*map(torch.empty, shapes))


def run_pass(run: AtenPass, gm: fx.GraphModule) -> bool:
    """Run a pass, verify what it leaves, and return what it says; a pass that says no must leave the graph alone."""
    text, before = text_of(gm), outline_of(gm.graph)
    assert not before.untrue
    changed = run(gm.graph)
    verify(gm.graph, before, run.__name__)
    assert changed or text_of(gm) == text
    return changed


def text_of(gm: fx.GraphModule) -> str:
    """Return the statements of a graph, one a line."""
    gm.graph.lint()
    gm.recompile()
    code = [line.strip() for line in gm.code.strip().splitlines() if not line.strip().startswith("def ")]
    text = "\n".join(line.split(";")[0] for line in code if line)
    for long, short in (("torch.ops.", ""), ("torch.", ""), (".default", ""), ("convert_element_type", "convert")):
        text = text.replace(long, short)
    return text.replace("device(type='xpu', index=0)", "xpu").replace(", pin_memory = False", "")
