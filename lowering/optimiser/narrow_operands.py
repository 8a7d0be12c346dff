"""Lets float32 matrix products of widened values read what these were widened from.

before:  y = mm(convert(a, float32), convert(b, float32))        # a and b are bfloat16
after:   y = mm(a, b, float32)

The product of two numbers of a lower dtype is exact in float32, in which libraries add them up; they add in another
order than for float32 operands, so that values change by roundings of float32: it is for ``precision="fast"``. Saved
are the kernels of the casts, half the bytes that the product reads and a backward keeps, and the slow float32 units.
Attention without a fused kernel multiplies such values. Left alone: products of which one operand is true float32;
CPU graphs, whose libraries have no such product.
"""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.cast_rule import LOWER_DTYPES
from xpu_amp_dynamo.lowering.optimiser.edit import Rebuilder, call_after, dtype_of, erase_unused, on_gpu
from xpu_amp_dynamo.lowering.optimiser.fold_casts import came_from, narrow_source
from xpu_amp_dynamo.lowering.optimiser.ops import WIDENING


def narrow_operands(graph: fx.Graph) -> bool:
    """Let products of widened values read the lower dtype; tell whether there were any.

    Args:
        graph: an ATen graph with ``val`` in its nodes' meta. Edited in place.
    """
    rebuilder = Rebuilder(narrow_source)
    found = [(product, _dtype_before_widening(product)) for product in graph.nodes if product.target in WIDENING]
    changed = [(product, dtype) for product, dtype in found if dtype is not None]
    for product, dtype in changed:
        operands = product.all_input_nodes
        narrow = [rebuilder.in_dtype(operand, dtype) for operand in product.args if isinstance(operand, fx.Node)]
        product.replace_all_uses_with(call_after(product, WIDENING[product.target], (*narrow, torch.float32), product))
        graph.erase_node(product)
        erase_unused(operands)
    return bool(changed)


def _dtype_before_widening(product: fx.Node) -> torch.dtype | None:
    """Return the lower dtype that all operands of a float32 product were widened from, None if there is none."""
    if dtype_of(product) is not torch.float32 or not on_gpu(product):
        return None
    return next((d for d in LOWER_DTYPES if all(came_from(o, d) for o in product.all_input_nodes)), None)
