"""The plan for the weights of a graph: what casts its caller keeps of them, and where it hands these over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.functorch_levels import is_level_call
from xpu_amp_dynamo.lowering.graph.node_kind import GRAD_MODE_CALLS, subgraphs_of
from xpu_amp_dynamo.lowering.graph.values import storage_of, value_of
from xpu_amp_dynamo.lowering.graph.writes import written_storages

# Where Dynamo says what an input is, torch 2.13.0.
SOURCE = "_dynamo_source"


class KeptCast(NamedTuple):
    """A cast of a weight: the position of the weight among the inputs, to which dtype, and in which layout."""

    position: int
    dtype: torch.dtype
    layout: torch.memory_format | torch.layout


@dataclass
class WeightPlan:
    """What the passes over weights have to work with, and what they decided.

    Args:
        weights: the inputs of the graph that are weights, each with its position.
        kept: the casts that the caller hands over, in this order, behind the inputs that the graph was captured with.
        stored: positions of weights that the caller hands over in another dtype than captured, and these dtypes.
    """

    weights: dict[fx.Node, int] = field(default_factory=dict)
    kept: list[KeptCast] = field(default_factory=list)
    stored: dict[int, torch.dtype] = field(default_factory=dict)

    def kept_inputs(self, gm: fx.GraphModule) -> list[fx.Node]:
        """List the inputs of the graph that kept casts are handed over for, in order."""
        inputs = placeholders(gm)
        return inputs[len(inputs) - len(self.kept) :]

    def positions_of_kept(self, gm: fx.GraphModule) -> dict[tuple[int, torch.dtype], int]:
        """Return the position of the input for each kept cast, by the position of the weight and the dtype."""
        first = len(placeholders(gm)) - len(self.kept)
        return {(kept.position, kept.dtype): first + number for number, kept in enumerate(self.kept)}

    def kept_values(self, gm: fx.GraphModule) -> list[Any]:
        """List what stands for the kept casts while the graph is compiled."""
        return list(map(value_of, self.kept_inputs(gm)))


def weights_of(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> dict[fx.Node, int]:
    """Return the inputs that are plain parameters, each with its position.

    Args:
        gm: a graph from Dynamo.
        example_inputs: a value for each of its inputs; those of type ``torch.nn.Parameter`` are the weights.

    Returns:
        Without those that the graph writes to, and those that ``fully_shard`` gathers anew for each call, unseen by
        version counters.
    """
    written = written_weights(gm, example_inputs)
    return {
        node: position
        for position, (node, value) in enumerate(zip(placeholders(gm), example_inputs, strict=True))
        if type(value) is torch.nn.Parameter and position not in written and not _is_gathered(node)
    }


def written_weights(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> set[int]:
    """Return the positions of the parameters among a graph's inputs that it writes to, be it through ``.data``."""
    written = written_storages(gm.graph.nodes)
    return {
        position
        for position, (node, value) in enumerate(zip(placeholders(gm), example_inputs, strict=True))
        if isinstance(value, torch.nn.Parameter) and storage_of(value_of(node)) in written
    }


def differentiates_inside(gm: fx.GraphModule) -> bool:
    """Tell whether a graph may differentiate by itself, whatever the grad mode is around it.

    It, or a graph that it calls, then turns the grad mode on or enters levels of ``torch.func``.
    """
    return enters_levels(gm) or any(
        (node.target in GRAD_MODE_CALLS and node.args[0] is not False)
        or any(differentiates_inside(module) for _, module in subgraphs_of(node))
        for node in gm.graph.nodes
    )


def enters_levels(gm: fx.GraphModule) -> bool:
    """Tell whether a graph, or one that it calls, enters levels of ``torch.func``."""
    return any(
        is_level_call(node) or any(enters_levels(module) for _, module in subgraphs_of(node)) for node in gm.graph.nodes
    )


def placeholders(gm: fx.GraphModule) -> list[fx.Node]:
    """List the inputs of a graph, in order."""
    return list(gm.graph.find_nodes(op="placeholder"))


def _is_gathered(weight: fx.Node) -> bool:
    """Tell whether a parameter belongs to a module that is sharded over processes."""
    source = getattr(weight, SOURCE, None)
    return source is not None and source.guard_source.is_fsdp_module()
