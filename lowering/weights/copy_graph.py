"""Copies a graph of Dynamo, which looks at the inputs of its own again, to give the copy other inputs."""

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
    return own, WeightPlan({copies[node]: position for node, position in plan.weights.items()})
