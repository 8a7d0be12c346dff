"""Lets the dtypes that export asserts follow the lowered values.

before:  y = linear(x.to(bfloat16), ...)                     # bfloat16, recorded as float32
         _assert_tensor_metadata(y, dtype=float32)
after:   _assert_tensor_metadata(y, dtype=bfloat16)

Export asserts the dtype of whatever the program casts (torch 2.13.0). A call with no dtype stays as it is.
"""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.values import value_of


def update_assertions(gm: fx.GraphModule, _: LoweringContext) -> bool:
    """Give every assertion the dtype of its lowered input; tell whether any was out of date."""
    changed = False
    for node in gm.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_tensor_metadata.default):
        dtype = value_of(node.args[0]).dtype
        if node.kwargs.get("dtype", dtype) is not dtype:
            node.update_kwarg("dtype", dtype)
            changed = True
    return changed
