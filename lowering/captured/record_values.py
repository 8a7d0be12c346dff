"""Notes the value that capture recorded for every node, and computes those that are missing.

Dynamo and export record a fake tensor a node. A graph from ``torch.fx.symbolic_trace`` has none: its values are
computed from example inputs, as the program runs without autocast. A call that runs only under autocast, since it
mixes dtypes, stays without a value until it is lowered; so do those that depend on it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from xpu_amp_dynamo.compat.fake_tensors import FakeTensorMode, mode_of_tensor
from xpu_amp_dynamo.errors import LoweringError
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.fake_run import run_node
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS, attribute_of
from xpu_amp_dynamo.lowering.graph.values import has_value, set_value, tensors_in, value_of


def fake_mode_of(gm: fx.GraphModule) -> FakeTensorMode:
    """Return the fake tensor mode of a graph's recorded values, a new one if it has none.

    It is read from the values and not from the tracing context: in a backend the latter gives another one, and
    mixing two raises (torch 2.13.0).
    """
    for node in gm.graph.nodes:
        for tensor in tensors_in(value_of(node)):
            mode = mode_of_tensor(tensor)
            if mode is not None:
                return mode
    return FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())


def record_values(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Note the value of every node as captured, computing what is missing; the graph itself stays as it is.

    The fake tensor mode of the context must be active.

    Raises:
        LoweringError: the number of inputs does not fit, or the graph calls modules.
    """
    placeholders = gm.graph.find_nodes(op="placeholder")
    given = len(context.example_inputs)
    # Dynamo of torch 2.11 records nothing for the unused arguments of a custom backward.
    if not all(has_value(p) or not p.users for p in placeholders) and len(placeholders) != given:
        raise LoweringError(
            f"the graph has {len(placeholders)} placeholders and {given} example inputs were given; give one for each "
            "placeholder"
        )
    for node, example in zip(placeholders, context.example_inputs, strict=False):
        if not has_value(node):
            set_value(node, _faked(example, context.fake_mode))
    for node in gm.graph.nodes:
        if not has_value(node):
            _compute(node, gm, context.fake_mode)
    recorded = {node: value_of(node) for node in gm.graph.nodes if has_value(node) or node.op == "output"}
    context.recorded.update(recorded)
    for node, value in zip(placeholders, context.inputs_now, strict=False):
        set_value(node, value)
    return False


def _compute(node: fx.Node, gm: fx.GraphModule, fake_mode: FakeTensorMode) -> None:
    """Compute and store one node's value."""
    if node.op == "call_module":
        raise LoweringError(
            f"the graph calls the module {node.target!r}, whose ops cannot be seen; capture it with torch.compile "
            "or torch.export, which inline modules"
        )
    if node.op == "get_attr":
        set_value(node, _faked(attribute_of(gm, str(node.target)), fake_mode))
    elif node.op in CALLS and all(map(has_value, node.all_input_nodes)):
        # A call that is wrong in itself raises again when it is lowered.
        with contextlib.suppress(RuntimeError):
            set_value(node, run_node(node))


def _faked(value: Any, fake_mode: FakeTensorMode) -> Any:
    """Return a tensor as a fake tensor of the mode, any other value as it is."""
    if isinstance(value, torch.Tensor) and mode_of_tensor(value) is None:
        return fake_mode.from_tensor(value, static_shapes=True)
    return value
