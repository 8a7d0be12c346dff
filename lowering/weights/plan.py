"""The weights among the inputs of a graph: what casts may be kept of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.functorch_levels import is_level_call
from xpu_amp_dynamo.lowering.graph.node_kind import GRAD_MODE_CALLS, subgraphs_of
from xpu_amp_dynamo.lowering.graph.values import storage_of, value_of
from xpu_amp_dynamo.lowering.graph.writes import written_storages

# Where Dynamo says what an input is, torch 2.13.0.
SOURCE = "_dynamo_source"


def weights_of(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> dict[fx.Node, int]:
    """Return the inputs that are plain parameters, each with its position.

    Args:
        gm: a graph from Dynamo.
        example_inputs: a value for each of its inputs; those of type ``torch.nn.Parameter`` are the weights.

    Returns:
        Without those that the graph writes to, and those that ``fully_shard`` gathers anew for each call, unseen by
        version counters.
    """
    written = written_storages(gm.graph.nodes)
    return {
        node: position
        for position, (node, value) in enumerate(zip(placeholders(gm), example_inputs, strict=True))
        if type(value) is torch.nn.Parameter and storage_of(value_of(node)) not in written and not _is_gathered(node)
    }


def differentiates_inside(gm: fx.GraphModule) -> bool:
    """Tell whether a graph may differentiate by itself, whatever the grad mode is around it.

    It, or a graph that it calls, then turns the grad mode on or enters levels of ``torch.func``.
    """
    return any(
        (node.target in GRAD_MODE_CALLS and node.args[0] is not False)
        or is_level_call(node)
        or any(differentiates_inside(module) for _, module in subgraphs_of(node))
        for node in gm.graph.nodes
    )


def placeholders(gm: fx.GraphModule) -> list[fx.Node]:
    """List the inputs of a graph, in order."""
    return list(gm.graph.find_nodes(op="placeholder"))


def _is_gathered(weight: fx.Node) -> bool:
    """Tell whether a parameter belongs to a module that is sharded over processes."""
    source = getattr(weight, SOURCE, None)
    return source is not None and source.guard_source.is_fsdp_module()
