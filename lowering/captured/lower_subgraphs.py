"""Lowers the graphs that higher-order ops call, each under the autocast state of its call.

before:  y = cond(p, true_graph, false_graph, (x, w))     # true_graph: linear(x, w)
after:   the same, with true_graph: linear(x.to(bfloat16), w.to(bfloat16)).to(float32)

Inputs and outputs of a subgraph keep their recorded dtypes, so it can be lowered without its caller. A subgraph that is
called under several states, or inside several kept modules, is copied, one for each.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import fx

from xpu_amp_dynamo.lowering.captured.lower_body import calls_body
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.kept_calls import KeptCall
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS, subgraphs_of

_Place = tuple[AutocastState, tuple[KeptCall, ...]]


def lower_subgraphs(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Lower every graph that a call of this one calls; tell whether there were any."""
    lowered: dict[tuple[fx.GraphModule, _Place], fx.GraphModule] = {}
    calls = [
        (node, getter, module, _place_of(node, getter, context))
        for node in gm.graph.nodes
        if node.op in CALLS and not calls_body(node, context)
        for getter, module in subgraphs_of(node)
    ]
    pristine = {module: copy.deepcopy(module) for _, _, module, _ in calls if _places(module, calls) > 1}
    for node, getter, module, place in calls:
        if (module, place) not in lowered:
            first = not any(done is module for done, _ in lowered)
            lowered[module, place] = module if first else copy.deepcopy(pristine[module])
            context.lower_inside(lowered[module, place], context.for_subgraph(*place))
        if lowered[module, place] is not module:
            node.replace_input_with(getter, _fetch(gm, lowered[module, place], getter))
            _identify(node, list(lowered).index((module, place)))
    return bool(calls)


def _identify(call: fx.Node, number: int) -> None:
    """Give the call of a copied subgraph an identifier of its own, by which AOTAutograd finds traces (torch 2.13.0)."""
    if call.target is torch.ops.higher_order.invoke_subgraph:
        subgraph, identifier, *operands = call.args
        call.args = (subgraph, f"{identifier}_{number}", *operands)


def _places(module: fx.GraphModule, calls: list[tuple[fx.Node, fx.Node, fx.GraphModule, _Place]]) -> int:
    """Count the different places from which a subgraph is called."""
    return len({place for _, _, called, place in calls if called is module})


def _place_of(node: fx.Node, getter: fx.Node, context: LoweringContext) -> _Place:
    """Return the state of a subgraph's entry, and the calls of kept modules that it lies in."""
    return _state_inside(node, getter, context), context.modules.calls_around(node)


def _state_inside(node: fx.Node, getter: fx.Node, context: LoweringContext) -> AutocastState:
    """Return the state of a subgraph's entry: that of its call, but a custom backward runs outside regions.

    The grad mode is that around the graph, so that calls which differ in it alone share a subgraph.
    """
    state = dataclasses.replace(context.states[node].captured, grad_enabled=context.initial_state.grad_enabled)
    backward = str(node.target) == "autograd_function_apply" and node.args[1] is getter
    return dataclasses.replace(state, enabled=False) if backward else state


def _fetch(gm: fx.GraphModule, module: fx.GraphModule, getter: fx.Node) -> fx.Node:
    """Add a subgraph to its caller and return a node that fetches it, placed where another is fetched."""
    name = f"{getter.target}_{len(list(gm.children()))}"
    gm.add_submodule(name, module)
    with gm.graph.inserting_after(getter):
        return gm.graph.get_attr(name)
