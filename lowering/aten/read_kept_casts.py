"""Has a graph with a backward read casts of weights that its caller keeps, in place of casting.

before:  forward(w, w_bfloat16):  y = mm(x, convert(w, bfloat16))      # w_bfloat16 is unused
after:   forward(w, w_bfloat16):  y = mm(x, w_bfloat16)

The backward stays as it is: it widens the gradient. Kept: casts whose memory something sees, such as outputs, since the
caller would get what it must not write to. Values do not change as long as the caller hands over what the casts give.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from xpu_amp_dynamo.compat.aot_inputs import input_position
from xpu_amp_dynamo.lowering.aten.edit import casts_in, dtype_of, source_of
from xpu_amp_dynamo.lowering.aten.memory import Memory
from xpu_amp_dynamo.lowering.aten.replace import same_layout
from xpu_amp_dynamo.lowering.graph.values import value_of


def read_kept_casts(graph: fx.Graph, kept: Mapping[tuple[int, torch.dtype], int]) -> bool:
    """Replace casts of weights by inputs; tell whether there were any.

    Args:
        graph: the forward and backward of a graph in one, from AOTAutograd. Edited in place.
        kept: by the position of a weight among the inputs of the graph that AOTAutograd got, and by dtype, the position
            of the input that is its cast.
    """
    inputs = {input_position(node): node for node in graph.find_nodes(op="placeholder")}
    stand_ins: dict[tuple[fx.Node, torch.dtype | None], fx.Node] = {
        (inputs[position], dtype): inputs[cast]
        for (position, dtype), cast in kept.items()
        if position in inputs and cast in inputs
    }
    memory = Memory(graph)
    replaced = []
    for cast in casts_in(graph):
        known = stand_ins.get((source_of(cast), dtype_of(cast)))
        if known is not None and not memory.is_seen(cast) and same_layout(value_of(cast), value_of(known)):
            cast.replace_all_uses_with(known)
            graph.erase_node(cast)
            replaced.append(known)
    return bool(replaced)
