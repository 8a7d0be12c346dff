"""Unwraps the regions that export wraps into graphs of their own.

before:  y = wrap_with_autocast("xpu", bfloat16, True, None, body, x, w)   # body: linear(x, w)
after:   enter = _enter_autocast("xpu", bfloat16, True, None); y = linear(x, w); _exit_autocast(enter)

Both mean the same. In this form a region's ops are lowered beside those around it, with casts shared, and its outputs
need no cast back.
"""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.lowering.captured.find_regions import ENTER, EXIT
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.graft import Copies, graft, move_attribute
from xpu_amp_dynamo.lowering.graph.node_kind import attribute_of

_WRAP = torch.ops.higher_order.wrap_with_autocast


def inline_regions(gm: fx.GraphModule, _: LoweringContext) -> bool:
    """Replace every wrapped region of a graph, nested ones too, by its nodes; tell whether there was any."""
    found = False
    while calls := gm.graph.find_nodes(op="call_function", target=_WRAP):
        found = True
        for call in calls:
            _inline(gm, call)
        # Each time: of a module with two names, one within a region that is unwrapped now, the other would stay.
        gm.delete_all_unused_submodules()
    return found


def _inline(gm: fx.GraphModule, call: fx.Node) -> None:
    """Put the nodes of one region in the place of its call."""
    device_type, dtype, enabled, cache_enabled, body, *inputs = call.args
    assert isinstance(body, fx.Node)
    module = attribute_of(gm, str(body.target))
    assert isinstance(module, fx.GraphModule)
    with gm.graph.inserting_before(call):
        enter = gm.graph.call_function(ENTER, (device_type, dtype, enabled, cache_enabled))
        leave = gm.graph.call_function(EXIT, (enter,))

    def copy(node: fx.Node, copies: Copies) -> fx.Node:
        if node.op == "get_attr":
            return move_attribute(node, leave)
        with gm.graph.inserting_before(leave):
            return gm.graph.node_copy(node, copies.__getitem__)

    graft(call, module, inputs, copy)
    if not body.users:
        gm.graph.erase_node(body)
