"""Makes casts of weights inputs of the graph, so that its caller can keep their results from call to call.

before:  forward(x, w):              y = linear(x.to(bfloat16), w.to(bfloat16))
after:   forward(x, w, w_bfloat16):  y = linear(x.to(bfloat16), w_bfloat16)

For graphs without a backward. Left alone: casts of anything but weights, see ``weights_of``. Values do not change as
long as the caller hands over what the casts would give.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.casting import is_inserted_cast
from xpu_amp_dynamo.lowering.graph.values import set_value, value_of
from xpu_amp_dynamo.lowering.records import dtype_name
from xpu_amp_dynamo.lowering.weights.plan import SOURCE, KeptCast, WeightPlan, placeholders

# What AOTAutograd looks for on Dynamo's graphs, as it does for SOURCE, torch 2.13.0.
_STATIC_INPUT = "_dynamo_static_input_type"


def lift_weight_casts(gm: fx.GraphModule, plan: WeightPlan) -> bool:
    """Replace the casts of weights by inputs behind those that the graph has; tell whether there were any.

    Args:
        gm: a lowered graph from Dynamo. Edited in place.
        plan: its weights; the casts that its caller hands over are added to it.
    """
    found = _casts_of(plan.weights)
    last = placeholders(gm)[-1] if found else None
    for kept, casts in found.items():
        assert last is not None
        last = add_input(gm, kept, value_of(casts[0]), last)
        for cast in casts:
            cast.replace_all_uses_with(last)
            gm.graph.erase_node(cast)
    plan.kept.extend(found)
    return bool(found)


def _casts_of(weights: Mapping[fx.Node, int]) -> dict[KeptCast, list[fx.Node]]:
    """Find the inserted casts of weights."""
    found: dict[KeptCast, list[fx.Node]] = {}
    for weight, position in weights.items():
        for cast in filter(is_inserted_cast, weight.users):
            found.setdefault(KeptCast(position, value_of(cast).dtype, torch.preserve_format), []).append(cast)
    return found


def add_input(gm: fx.GraphModule, kept: KeptCast, value: torch.Tensor, last: fx.Node) -> fx.Node:
    """Add an input for the cast of a weight behind the last one, and return it.

    Args:
        gm: a lowered graph from Dynamo. Edited in place.
        kept: the cast.
        value: a fake tensor for it, in the layout of the weight.
        last: the last input that there is.
    """
    weight = placeholders(gm)[kept.position]
    dtype = dtype_name(kept.dtype)
    with gm.graph.inserting_after(last):
        added = gm.graph.placeholder(f"{weight.target}_{dtype}")
    setattr(added, SOURCE, None)
    # CUDA graphs may rely on its address, as on those of weights: the store renews casts in place.
    added.meta["tensor_dict"] = {_STATIC_INPUT: "unguarded"}
    set_value(added, value.detach())
    return added
