"""Makes the lower precision the dtype of the parameters that a program reads in no other, for export.

before:  forward(x, w: float32):   y = linear(x.to(bfloat16), w.to(bfloat16))
after:   forward(x, w: bfloat16):  y = linear(x.to(bfloat16), w)

Left alone: parameters that anything but casts to one dtype reads.
"""

from __future__ import annotations

from torch import fx

from xpu_amp_dynamo.lowering.graph.casting import is_inserted_cast
from xpu_amp_dynamo.lowering.graph.values import set_value, value_of
from xpu_amp_dynamo.lowering.weights.plan import WeightPlan


def store_parameters(gm: fx.GraphModule, plan: WeightPlan) -> bool:
    """Drop the casts of the parameters that the graph reads in one lower precision only; tell whether there were any.

    Args:
        gm: a lowered graph from export. Edited in place.
        plan: its parameters; those to be stored in another dtype are added to it.
    """
    for node, position in plan.weights.items():
        casts = list(node.users)
        dtypes = {value_of(cast).dtype for cast in casts if is_inserted_cast(cast)}
        if len(dtypes) != 1 or not all(map(is_inserted_cast, casts)):
            continue
        (plan.stored[position],) = dtypes
        set_value(node, value_of(casts[0]))
        for cast in casts:
            cast.replace_all_uses_with(node)
            gm.graph.erase_node(cast)
    return bool(plan.stored)
