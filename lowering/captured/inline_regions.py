"""Unwraps the regions that export wraps into graphs of their own.

before:  y = wrap_with_autocast("xpu", bfloat16, True, None, body, x, w)   # body: linear(x, w)
after:   enter = _enter_autocast("xpu", bfloat16, True, None); y = linear(x, w); _exit_autocast(enter)

Both mean the same. In this form a region's ops are lowered beside those around it, with casts shared, and its outputs
need no cast back.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.lowering.captured.find_regions import ENTER, EXIT
from xpu_amp_dynamo.lowering.graph.node_kind import attribute_of

_WRAP = torch.ops.higher_order.wrap_with_autocast


def inline_regions(gm: fx.GraphModule) -> bool:
    """Replace every wrapped region of a graph, nested ones too, by its nodes; tell whether there was any."""
    found = False
    while calls := gm.graph.find_nodes(op="call_function", target=_WRAP):
        found = True
        for call in calls:
            _inline(gm, call)
    if found:
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
        copies: dict[fx.Node, Any] = dict(zip(module.graph.find_nodes(op="placeholder"), inputs, strict=True))
        for node in module.graph.nodes:
            if node.op == "get_attr":
                copies[node] = _move_attribute(gm, module, node)
            elif node.op not in ("placeholder", "output"):
                copies[node] = gm.graph.node_copy(node, copies.__getitem__)
        results: Any = fx.map_arg(module.graph.output_node().args[0], copies.__getitem__)
        gm.graph.call_function(EXIT, (enter,))
    for item in list(call.users):
        assert item.target is operator.getitem
        item.replace_all_uses_with(results[item.args[1]])
        gm.graph.erase_node(item)
    gm.graph.erase_node(call)
    if not body.users:
        gm.graph.erase_node(body)


def _move_attribute(gm: fx.GraphModule, module: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Give the graph what a region's graph fetches, under a name that is free, and fetch it."""
    name = f"region_{node.target}".replace(".", "_")
    while hasattr(gm, name):
        name += "_"
    setattr(gm, name, attribute_of(module, str(node.target)))
    copy = gm.graph.get_attr(name)
    copy.meta = dict(node.meta)
    return copy
