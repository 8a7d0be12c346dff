"""Takes the autocast regions out of the graph and notes the state of every node in the context.

before:  enter = _enter_autocast("xpu", bfloat16, True, None); y = linear(x, w); _exit_autocast(enter)
after:   y = linear(x, w)                                       # states[y]: enabled, bfloat16

A lowered graph has no autocast left, so that nothing is cast twice when AOTAutograd traces it, when the
compiled code runs, and in backward; and such a graph can be cached. Regions of another device type that
owns tensors of the graph stay.
"""

from __future__ import annotations

from torch import fx

from xpu_amp_dynamo.lowering.captured.find_regions import find_regions
from xpu_amp_dynamo.lowering.graph.context import LoweringContext


def erase_regions(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Record each node's autocast state in ``context.states`` and erase the region nodes; tell if any was there."""
    regions = find_regions(gm.graph, context.initial_state, context.device_type, context.modules)
    context.states.update(regions.states)
    context.entries.update({**regions.entries, **context.entries})
    for marker in reversed(regions.markers):
        gm.graph.erase_node(marker)
    context.forget(regions.markers)
    return bool(regions.markers)
