"""Lets matrix products read a lower dtype and write float32 where they stand between casts.

before:  y = convert(view(mm(a, b)), float32)                    # a and b are bfloat16
after:   y = view(mm(a, b, float32))

before:  y = mm(convert(a, float32), convert(b, float32))        # the same
after:   y = mm(a, b, float32)

The products of two numbers of a lower dtype are exact in float32, in which libraries add them up anyway. The first
form keeps what rounding to the lower dtype would drop, the second adds in another order: values change, which is for
``precision="fast"``. Saved are the kernels of the casts and most of their bytes. Left alone: casts into which a
kernel can fuse, since such a kernel reads fewer bytes in the lower dtype; results that are used in the lower dtype;
CPU graphs, whose libraries have no such product.
"""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.cast_rule import LOWER_DTYPES
from xpu_amp_dynamo.lowering.optimiser.edit import Rebuilder, call_after, casts_in, dtype_of, erase_unused, source_of
from xpu_amp_dynamo.lowering.optimiser.fold_casts import came_from, narrow_source
from xpu_amp_dynamo.lowering.optimiser.library_calls import feeds_only_library_calls, result_used_once
from xpu_amp_dynamo.lowering.optimiser.ops import GPU_DEVICE_TYPES

aten = torch.ops.aten
WIDENING = {aten.mm.default: aten.mm.dtype, aten.bmm.default: aten.bmm.dtype}


def widen_products(graph: fx.Graph) -> bool:
    """Let products write float32 where casts to it follow or precede; tell whether there were any.

    Args:
        graph: an ATen graph as Inductor is about to lower it, with ``val`` in its nodes' meta. Edited in place.
    """
    return any([_widen_results(graph), _narrow_operands(graph)])


def _widen_results(graph: fx.Graph) -> bool:
    """Replace casts of results to float32 by products that write it."""
    casts = [cast for cast in casts_in(graph) if _only_widens_a_product(cast)]
    rebuilder = Rebuilder(_widened)
    for cast in casts:
        result = source_of(cast)
        cast.replace_all_uses_with(rebuilder.in_dtype(result, torch.float32))
        erase_unused([cast])
    graph.eliminate_dead_code(lambda node: node.target not in WIDENING)
    return bool(casts)


def _only_widens_a_product(cast: fx.Node) -> bool:
    """Tell whether a cast is a kernel of its own behind a product in a lower dtype."""
    source = source_of(cast)
    if dtype_of(cast) is not torch.float32 or dtype_of(source) not in LOWER_DTYPES or not _on_gpu(cast):
        return False
    called = result_used_once(source)
    return called is not None and called.target in WIDENING and feeds_only_library_calls(cast)


def _narrow_operands(graph: fx.Graph) -> bool:
    """Let products of widened values read what these were widened from."""
    rebuilder = Rebuilder(narrow_source)
    found = [(product, _dtype_before_widening(product)) for product in graph.nodes if product.target in WIDENING]
    changed = [(product, dtype) for product, dtype in found if dtype is not None]
    for product, dtype in changed:
        operands = product.all_input_nodes
        wide = [argument for argument in product.args if isinstance(argument, fx.Node)]
        narrow = [rebuilder.in_dtype(argument, dtype) for argument in wide]
        product.replace_all_uses_with(call_after(product, WIDENING[product.target], (*narrow, torch.float32), product))
        graph.erase_node(product)
        erase_unused(operands)
    return bool(changed)


def _dtype_before_widening(product: fx.Node) -> torch.dtype | None:
    """Return the lower dtype that all operands of a float32 product were widened from, None if there is none."""
    if dtype_of(product) is not torch.float32 or not _on_gpu(product):
        return None
    return next((d for d in LOWER_DTYPES if all(came_from(o, d) for o in product.all_input_nodes)), None)


def _widened(node: fx.Node, dtype: torch.dtype) -> fx.Node | None:
    """Return a product that writes float32 in place of one that writes the lower dtype, None for other nodes."""
    if node.target not in WIDENING:
        return None
    return call_after(node, WIDENING[node.target], (*node.args, dtype), like=node)


def _on_gpu(node: fx.Node) -> bool:
    return node.meta["val"].device.type in GPU_DEVICE_TYPES
