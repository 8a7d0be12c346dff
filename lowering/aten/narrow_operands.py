"""Lets float32 matrix products of widened values read what these were widened from.

before:  y = mm(convert(a, float32), convert(b, float32))        # a and b are bfloat16
after:   y = mm(a, b, float32)

The product of two numbers of a lower dtype is exact in float32, in which libraries add them up; they add in another
order than for float32 operands, so that values change by roundings of float32: it is for ``precision="fast"``. Saved
are the kernels of the casts, half the bytes that the product reads and a backward keeps, and the slow float32 units.
Attention without a fused kernel multiplies such values. Left alone: products of which one operand is true float32;
products of inputs or outputs in graphs with a backward; CPU graphs, whose libraries have no such product.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from xpu_amp_dynamo.compat.op_types import OpOverload
from xpu_amp_dynamo.lowering.aten.edit import base_of, call_after, dtype_of, erase_unused, on_gpu
from xpu_amp_dynamo.lowering.aten.fold_casts import narrow_sources, widened_from
from xpu_amp_dynamo.lowering.aten.memory import Memory
from xpu_amp_dynamo.lowering.aten.ops import WIDENING
from xpu_amp_dynamo.lowering.aten.rebuild import Rebuilder


def narrow_operands(graph: fx.Graph) -> bool:
    """Let products of widened values read the lower dtype; tell whether there were any.

    Args:
        graph: an ATen graph with ``val`` in its nodes' meta. Edited in place.
    """
    widened = widened_from(graph)
    found = [(node, _dtype_before_widening(node, widened)) for node in graph.nodes if node.target in WIDENING]
    products = [(product, dtype) for product, dtype in found if dtype is not None]
    if not products:
        return False
    memory = Memory(graph)
    rebuilder = Rebuilder(memory, narrow_sources(widened))
    is_differentiated = any(map(_is_backward, graph.nodes))

    def may_read(operand: fx.Node | None) -> bool:
        # A backward would keep the narrow value where it kept the wide one, which is memory of its own.
        return operand is not None and not (is_differentiated and _callers_may_write_to(operand, memory))

    changed = [_narrow(product, dtype, rebuilder, may_read) for product, dtype in products]
    rebuilder.erase_unused()
    return any(changed)


def _dtype_before_widening(product: fx.Node, widened: dict[fx.Node, torch.dtype]) -> torch.dtype | None:
    """Return the lower dtype that all operands of a float32 product were widened from, None if there is none."""
    if dtype_of(product) is not torch.float32 or not on_gpu(product):
        return None
    dtypes = {widened.get(operand) for operand in product.all_input_nodes}
    return dtypes.pop() if len(dtypes) == 1 else None


def _narrow(
    product: fx.Node, dtype: torch.dtype, rebuilder: Rebuilder, may_read: Callable[[fx.Node | None], bool]
) -> bool:
    """Replace a product by one of narrow operands, which has the same layout; tell whether these could be made."""
    operands = [operand for operand in product.args if isinstance(operand, fx.Node)]
    narrow = [rebuilder.in_dtype(operand, dtype) for operand in operands]
    if not all(map(may_read, narrow)):
        return False
    assert isinstance(product.target, OpOverload)
    wide = WIDENING[product.target]
    product.replace_all_uses_with(call_after(product, wide, (*narrow, torch.float32), product, **product.kwargs))
    erase_unused([product])
    return True


def _callers_may_write_to(node: fx.Node, memory: Memory) -> bool:
    """Tell whether a value lies where callers may write between a forward and its backward."""
    base = base_of(node)
    return memory.knows(base) and not _is_backward(base) and (memory.is_input(base) or memory.is_seen(base))


def _is_backward(node: fx.Node) -> bool:
    """Tell whether a node of a joint graph is part of the backward; AOTAutograd says so, torch 2.13.0."""
    return bool(node.meta.get("partitioner_tag") == "is_backward")
