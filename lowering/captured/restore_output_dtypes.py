"""Keeps the dtypes that capture recorded for a graph's outputs.

before:  y = linear(...)            # bfloat16, recorded as float32
         return (y,)
after:   y = linear(...)
         return (y.to(float32),)

The code around the graph was compiled for the recorded dtypes: a graph break, or a branch of ``cond``, must
not meet a surprise bfloat16. Inside a region the recorded dtypes are those of eager autocast, and nothing is cast.
Mutated inputs need nothing: a write casts to the dtype of what it writes to.
"""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.casting import insert_cast
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.values import value_of
from xpu_amp_dynamo.policy.cast_rule import needs_cast


def restore_output_dtypes(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Cast those outputs whose dtype has changed back to the recorded one; tell whether there were any."""
    output = gm.graph.output_node()
    if not context.preserve_output_dtype:
        return False
    changed = [node for node in output.all_input_nodes if _has_changed(node, context)]
    for node in changed:
        output.replace_input_with(node, insert_cast(node, context.recorded[node].dtype, output))
    return bool(changed)


def _has_changed(node: fx.Node, context: LoweringContext) -> bool:
    """Tell whether a node holds a tensor of another eligible dtype than it was recorded with."""
    recorded, value = context.recorded[node], value_of(node)
    return isinstance(value, torch.Tensor) and needs_cast(value, recorded.dtype)
