"""The cast rule for calls in a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.node_kind import arguments_in_order, op_name_of
from xpu_amp_dynamo.lowering.graph.values import value_of
from xpu_amp_dynamo.policy.cast_rule import BY_INPUTS, Category


def wanted_dtype_of(node: fx.Node, category: Category | None, context: LoweringContext) -> torch.dtype | None:
    """Return the dtype to which a call's inputs are to be cast, None if the call is left alone.

    Args:
        node: a call, whose inputs have the dtypes that they have now.
        category: what the policy does with it.
        context: the lowering in hand.
    """
    arguments = fx.map_arg(arguments_in_order(node), _tensor_or_nothing) if category in BY_INPUTS else ()
    return context.wanted_dtype(str(op_name_of(node)), category, arguments, context.states[node].dtype)


def _tensor_or_nothing(node: fx.Node) -> Any:
    """Return the tensor that a node holds; what holds several is cast by no call."""
    value = value_of(node)
    return value if isinstance(value, torch.Tensor) else ()
