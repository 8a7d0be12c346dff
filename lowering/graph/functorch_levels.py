"""The levels of ``torch.func``: what a graph of ``grad``, ``vmap`` or ``jvp`` enters, and leaves, by calls.

before:  _vmap_increment_nesting(4, "error"); b = _add_batch_dim(x, 0, 1)
         y = linear(b, w)                                        # float32[16] a row
         z = _remove_batch_dim(y, 1, 4, 0); _vmap_decrement_nesting()
after:   the same with y = linear(b.to(bfloat16), w.to(bfloat16)).to(float32) between

A value between these calls is a wrapper that lives as long as its level, which was over when capture ended. So nothing
runs on wrappers again: the lowering asks what a call gives for plain tensors like them, and casts what it gives to
the dtype that capture recorded, inside the level.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.functorch import is_level_function, is_wrapped, unwrapped


def is_level_call(node: fx.Node) -> bool:
    """Tell whether a call enters or leaves a level, or wraps or unwraps a tensor for one."""
    return node.op == "call_function" and is_level_function(node.target)


def without_wrappers(value: Any) -> Any:
    """Return a plain tensor like a wrapped one, of the size that code inside the level sees; else the value itself."""
    if not isinstance(value, torch.Tensor) or not is_wrapped(value):
        return value
    plain = torch.empty(value.shape, dtype=value.dtype, device=value.device)
    return plain.requires_grad_(value.requires_grad)


def innermost(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor inside all wrappers."""
    while is_wrapped(tensor):
        tensor = unwrapped(tensor)
    return tensor
