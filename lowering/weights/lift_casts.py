"""Makes casts of weights inputs of the graph, so that its caller can keep their results from call to call.

before:  forward(x, w):              y = linear(x.to(bfloat16), w.to(bfloat16))
after:   forward(x, w, w_bfloat16):  y = linear(x.to(bfloat16), w_bfloat16)

For graphs without a backward. Left alone: casts of anything but weights, see ``weights_of``. Values do not change as
long as the caller hands over what the casts would give.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.casting import is_inserted_cast
from xpu_amp_dynamo.lowering.graph.node_kind import op_name_of
from xpu_amp_dynamo.lowering.graph.values import set_value, value_of
from xpu_amp_dynamo.lowering.weights.plan import SOURCE, placeholders

# What AOTAutograd looks for on Dynamo's graphs, as it does for SOURCE, torch 2.13.0.
_STATIC_INPUT = "_dynamo_static_input_type"
# Inductor, torch 2.13.0, copies the weights of these into that layout in every call.
CHANNELS_LAST_OF: dict[tuple[str | None, int], torch.memory_format] = {
    ("conv2d", 4): torch.channels_last,
    ("conv3d", 5): torch.channels_last_3d,
}
_KEPT_OF_MODULES = {"_param_name_to_source"}


class LiftedCast(NamedTuple):
    """A cast that became an input: of which input it is the cast, to which dtype, and in which layout."""

    position: int
    dtype: torch.dtype
    layout: torch.memory_format | torch.layout


def lift_weight_casts(gm: fx.GraphModule, weights: Mapping[fx.Node, int]) -> tuple[fx.GraphModule, list[LiftedCast]]:
    """Replace the casts of parameters in a lowered graph by inputs behind those that it has.

    Args:
        gm: a graph from Dynamo, lowered. It stays as it is, since Dynamo looks at its inputs again.
        weights: those of its inputs that are weights, each with its position.

    Returns:
        The graph with the further inputs, ``gm`` itself if there are none; and what to hand over for them, in order.
    """
    found = _casts_of(weights)
    if not found:
        return gm, []
    own, copies = _copy(gm)
    last = placeholders(own)[-1]
    for lifted, casts in found.items():
        last = _add_input(own, copies[casts[0]], lifted, last)
        for cast in casts:
            copies[cast].replace_all_uses_with(last)
            own.graph.erase_node(copies[cast])
    own.graph.lint()
    own.recompile()
    return own, list(found)


def _casts_of(weights: Mapping[fx.Node, int]) -> dict[LiftedCast, list[fx.Node]]:
    """Find the inserted casts of weights."""
    found: dict[LiftedCast, list[fx.Node]] = {}
    for weight, position in weights.items():
        for cast in filter(is_inserted_cast, weight.users):
            found.setdefault(LiftedCast(position, value_of(cast).dtype, _memory_format(cast)), []).append(cast)
    return found


def _copy(gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[fx.Node, fx.Node]]:
    """Copy a graph of Dynamo with all that AOTAutograd looks for on it; return the copies of its nodes too."""
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
    return own, copies


def _add_input(gm: fx.GraphModule, cast: fx.Node, lifted: LiftedCast, last: fx.Node) -> fx.Node:
    """Add an input for the cast of a weight behind the last one."""
    assert isinstance(cast.args[0], fx.Node)
    dtype = str(lifted.dtype).removeprefix("torch.")
    with gm.graph.inserting_after(last):
        added = gm.graph.placeholder(f"{cast.args[0].target}_{dtype}")
    setattr(added, SOURCE, None)
    # CUDA graphs may rely on its address, as on those of weights: the store renews casts in place.
    added.meta["tensor_dict"] = {_STATIC_INPUT: "unguarded"}
    value = value_of(cast).detach()
    assert isinstance(lifted.layout, torch.memory_format)
    preserved = lifted.layout is torch.preserve_format
    set_value(added, value if preserved else value.to(memory_format=lifted.layout))
    return added


def _memory_format(cast: fx.Node) -> torch.memory_format:
    """Return the layout to keep a weight in: on the CPU Inductor wants those of convolutions channels-last."""
    value = value_of(cast)
    formats = {CHANNELS_LAST_OF.get((op_name_of(user), value.dim()), torch.preserve_format) for user in cast.users}
    onednn = value.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return formats.pop() if onednn and len(formats) == 1 else torch.preserve_format
