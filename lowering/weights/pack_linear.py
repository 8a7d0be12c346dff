"""Hands the cached weights of linear layers over in the layout of oneDNN, on the CPU.

before:  forward(x, w_bfloat16):  y = linear(x, w_bfloat16, b)          # oneDNN packs w_bfloat16 in every call
after:   forward(x, w_packed):    y = packed_linear(x, w_packed, b)

Left alone: small weights, weights with any other use, products with tensor subclasses, and processors on which oneDNN
does not multiply in the lower precision. Values may change where oneDNN adds up in another order for packed weights;
none were seen to.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from xpu_amp_dynamo.compat.tensors import wraps_tensors
from xpu_amp_dynamo.lowering.graph.node_kind import op_name_of
from xpu_amp_dynamo.lowering.graph.values import set_value, value_of
from xpu_amp_dynamo.lowering.weights.plan import WeightPlan
from xpu_amp_dynamo.ops.packed_linear import PACKED, PACKED_LINEAR, can_pack, stand_in_for

# Elements of the smallest weight to pack. PyTorch multiplies a few rows by smaller ones in loops of its own, in a fifth
# of the 15 us that any call of oneDNN takes; from here on packed weights are never slower (torch 2.13.0, AVX-512).
SMALLEST = 2**14


def pack_linear_weights(gm: fx.GraphModule, plan: WeightPlan) -> bool:
    """Have linear layers read packed weights; tell whether there were any.

    Args:
        gm: a graph whose caller hands over casts of weights. Edited in place.
        plan: which casts; it asks for packed ones where these are read.
    """
    packable = list(map(_is_packable, plan.kept_inputs(gm)))
    for position, weight in enumerate(plan.kept_inputs(gm)):
        if packable[position]:
            _pack(weight)
            plan.kept[position] = plan.kept[position]._replace(layout=PACKED)
    return any(packable)


def _is_packable(weight: fx.Node) -> bool:
    """Tell whether a weight is worth packing and all its uses are products with it."""
    value = value_of(weight)
    large = value.dim() == 2 and value.numel() >= SMALLEST
    supported = value.device.type == "cpu" and can_pack(value.dtype)
    return large and supported and all(_is_product(user, weight) for user in weight.users)


def _is_product(node: fx.Node, weight: fx.Node) -> bool:
    """Tell whether a call multiplies something else by a weight, as ``linear`` does."""
    if op_name_of(node) != "linear":
        return False
    given = _arguments_of(node)
    only_weight = given["weight"] is weight and given["input"] is not weight
    return only_weight and not wraps_tensors(value_of(given["input"]))


def _pack(weight: fx.Node) -> None:
    """Have a weight's users read what stands for it packed."""
    set_value(weight, stand_in_for(value_of(weight)))
    for linear in list(weight.users):
        given = _arguments_of(linear)
        linear.op, linear.target = "call_function", PACKED_LINEAR
        linear.args, linear.kwargs = (given["input"], weight, given.get("bias")), {}


def _arguments_of(linear: fx.Node) -> dict[str, Any]:
    return dict(zip(("input", "weight", "bias"), linear.args, strict=False)) | linear.kwargs
