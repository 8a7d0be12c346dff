"""Copies graphs of Dynamo: with all that is known of their values to change the copy, and with nothing to keep it."""

from __future__ import annotations

from torch import fx

from xpu_amp_dynamo.lowering.weights.plan import SOURCE, WeightPlan, placeholders

# What AOTAutograd looks for on Dynamo's graph modules, torch 2.13.0.
_KEPT_OF_MODULES = {"_param_name_to_source"}


def copy_graph(gm: fx.GraphModule, plan: WeightPlan) -> tuple[fx.GraphModule, WeightPlan]:
    """Return a copy of a graph of Dynamo, with all that AOTAutograd looks for on it, and the plan for the copy."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    output = graph.graph_copy(gm.graph, copies)
    graph.output(output)
    own = fx.GraphModule(gm, graph)
    own.meta = gm.meta
    for name in _KEPT_OF_MODULES & vars(gm).keys():
        setattr(own, name, getattr(gm, name))
    for node in placeholders(gm):
        if hasattr(node, SOURCE):
            setattr(copies[node], SOURCE, getattr(node, SOURCE))
        # Dynamo takes it from its own graph too. It refers to the tensor, which could then not be swapped.
        copies[node].meta.pop("grapharg", None)
    return own, WeightPlan({copies[node]: position for node, position in plan.weights.items()})


def copy_without_values(gm: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of a graph that can be run and holds nothing of what is known of its values.

    Fake tensors hold weak references to the tensors that they stand for, with which these cannot be swapped.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(gm.graph, {}))
    for node in graph.nodes:
        node.meta = {}
    own = fx.GraphModule(gm, graph)
    own.meta = {}
    for name, module in own.named_children():
        if isinstance(module, fx.GraphModule):
            setattr(own, name, copy_without_values(module))
    return own
