"""Gives tensors that a kernel, a custom op or a subgraph writes to the dtype that they were captured with.

before:  y = linear(x, w); kernel(y); z = relu(y)                                  # y: float32, bfloat16 once lowered
after:   y = linear(x, w); kept = y.to(float32); kernel(kept); z = relu(kept)

A cast in front of the call would take the write away with its copy. So it stands behind what makes the memory, in
front of the call and of all views; where the lowering leaves the dtype alone, it takes the pin out again.
"""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.lowering.casting import insert_pin
from xpu_amp_dynamo.lowering.context import LoweringContext
from xpu_amp_dynamo.lowering.node_kind import CALLS, writes_unseen, written_storages
from xpu_amp_dynamo.lowering.values import storage_of, value_of


def pin_written_values(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Pin the first tensor in each memory that such a call writes to; tell whether there was any.

    Memory of the graph's inputs needs none, since lowering does not change their dtypes.
    """
    written = written_storages(filter(writes_unseen, gm.graph.nodes))
    pinned = False
    for node in list(gm.graph.nodes) if written else ():
        value = value_of(node)
        if isinstance(value, torch.Tensor) and storage_of(value) in written:
            written.remove(storage_of(value))
            if node.op in CALLS:
                pin = insert_pin(node)
                context.recorded[pin] = context.recorded[node]
                context.states[pin] = context.states[node]
                pinned = True
    return pinned
