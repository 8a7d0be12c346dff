"""Describes calls by all that their contents can depend on, so that a graph's sixtieth dropout is not traced again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.pytree import leaves_of

_NUMBERS = (bool, int, float, complex)
_CONSTANTS = (str, type(None), type(Ellipsis), torch.dtype, torch.device, torch.layout, torch.memory_format)
_PLAIN = (*_NUMBERS, *_CONSTANTS, slice, fx.Node)


def key_of(node: fx.Node, inputs: Sequence[Any], settings: Hashable) -> Hashable | None:
    """Return what two calls have in common only if they do the same; None where that cannot be told.

    Args:
        node: a call. What functions of others than PyTorch do may change from call to call.
        inputs: the values of ``node.all_input_nodes``.
        settings: whatever else decides what is looked for.
    """
    module = str(getattr(node.target, "__module__", None) or "torch")
    of_torch = isinstance(node.target, str) or module.partition(".")[0] in ("torch", "_operator")
    if not of_torch or not all(isinstance(leaf, _PLAIN) for leaf in leaves_of((node.args, node.kwargs))):
        return None
    given = dict(zip(node.all_input_nodes, map(_describe, inputs), strict=True))
    return node.op, node.target, settings, torch.is_grad_enabled(), _describe((node.args, node.kwargs), given)


def _describe(value: Any, given: dict[fx.Node, Hashable] | None = None) -> Hashable:
    """Describe an argument: a tensor by its properties, a symbolic size by its expression and its hint."""
    if isinstance(value, fx.Node):
        assert given is not None
        return given[value]
    if isinstance(value, torch.Tensor):
        strides = value.stride() if value.layout is torch.strided else ()
        sizes = _describe((*value.shape, *strides))
        return type(value), value.dtype, value.device.type, value.layout, sizes, value.requires_grad
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return type(value), str(value.node.expr), value.node.hint
    if isinstance(value, (list, tuple)):
        return type(value), *(_describe(item, given) for item in value)
    if isinstance(value, dict):
        return dict, *((name, _describe(item, given)) for name, item in value.items())
    if isinstance(value, slice):
        return slice, *(_describe(item, given) for item in (value.start, value.stop, value.step))
    # 1, 1.0 and True are equal, and so are zeros of both signs.
    return (type(value), repr(value)) if isinstance(value, _NUMBERS) else value
