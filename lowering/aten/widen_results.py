"""Lets matrix products in a lower dtype write float32 where only a cast to it follows.

before:  y = convert(view(mm(a, b)), float32)                    # a and b are bfloat16
after:   y = view(mm(a, b, float32))

Libraries add up in float32 anyway. This keeps what rounding the result would drop, so that values change: it is for
``precision="fast"``. Saved are the kernel of the cast and most of its bytes. Left alone: casts into which a
kernel can fuse, since such a kernel reads fewer bytes in the lower dtype; results that are used in the lower dtype;
CPU graphs, whose libraries have no such product.
"""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.lowering.aten.edit import call_after, casts_in, dtype_of, erase_unused, on_gpu, source_of
from xpu_amp_dynamo.lowering.aten.library_calls import feeds_only_library_calls, result_used_once
from xpu_amp_dynamo.lowering.aten.memory import Memory
from xpu_amp_dynamo.lowering.aten.ops import WIDENING
from xpu_amp_dynamo.lowering.aten.rebuild import Rebuilder
from xpu_amp_dynamo.lowering.aten.replace import Replacer
from xpu_amp_dynamo.policy.cast_rule import LOWER_DTYPES


def widen_results(graph: fx.Graph) -> bool:
    """Let products write float32 where only a cast to it follows; tell whether there were any.

    Args:
        graph: an ATen graph as Inductor is about to lower it, with ``val`` in its nodes' meta. Edited in place.
    """
    casts = [cast for cast in casts_in(graph) if _only_widens_a_product(cast)]
    if not casts:
        return False
    memory = Memory(graph)
    rebuilder, replacer = Rebuilder(memory, _widened), Replacer(memory)
    replaced = [replacer.replace({cast: rebuilder.in_dtype(source_of(cast), torch.float32)}) for cast in casts]
    rebuilder.erase_unused()
    erase_unused(casts)
    return any(replaced)


def _only_widens_a_product(cast: fx.Node) -> bool:
    """Tell whether a cast is a kernel of its own behind a product in a lower dtype."""
    source = source_of(cast)
    if dtype_of(cast) is not torch.float32 or dtype_of(source) not in LOWER_DTYPES or not on_gpu(cast):
        return False
    called = result_used_once(source)
    return called is not None and called.target in WIDENING and feeds_only_library_calls(cast)


def _widened(node: fx.Node, dtype: torch.dtype) -> fx.Node | None:
    """Return a product that writes float32 in place of one that writes the lower dtype, None for other nodes."""
    if node.target not in WIDENING:
        return None
    return call_after(node, WIDENING[node.target], (*node.args, dtype), like=node, **node.kwargs)
