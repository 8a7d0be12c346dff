"""Casts in a graph: makes them, shares them, and knows them again."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx

from xpu_amp_dynamo.cast_rule import LOWER_DTYPES
from xpu_amp_dynamo.lowering.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.values import set_value, storage_of, tensors_in, value_of

# Marks the casts that the lowering made; the value is the op that the cast serves.
CAST_KEY = "xpu_amp_dynamo.cast_for"
_COPIED_META = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom")


def is_inserted_cast(node: fx.Node) -> bool:
    """Tell whether the lowering made this cast."""
    return CAST_KEY in node.meta


class Caster:
    """Inserts casts into one graph, one per value and dtype.

    A cast is shared by later uses until the value is written to. Values on the tape are the exception: eager
    autocast casts an activation anew at each use and so adds up its gradients in float32, where one shared
    cast would add them up in the lower precision. Their casts stay apart, bit-equal to eager; AOTAutograd
    merges the forward copies after it has built the backward. Leaf parameters are shared, as in eager.
    """

    def __init__(self, grad_enabled: bool) -> None:
        self._shared: dict[tuple[fx.Node, torch.dtype, bool], fx.Node] = {}
        self.grad_enabled = grad_enabled

    def cast(self, node: fx.Node, dtype: torch.dtype, user: fx.Node, state: AutocastState) -> fx.Node:
        """Return a node that holds ``node`` in ``dtype``, placed before ``user`` if it is new."""
        source = self._source_of_widening(node, dtype)
        if source is not None:
            return source
        key = (node, dtype, self.grad_enabled)
        if key not in self._shared or not self._may_share(node, state):
            self._shared[key] = insert_cast(node, dtype, user)
        return self._shared[key]

    def forget(self, written: Iterable[fx.Node]) -> None:
        """Stop sharing the casts of values whose memory has been written to."""
        storages = {storage_of(t) for node in written for t in tensors_in(value_of(node))}
        for key in list(self._shared):
            if storages & {storage_of(t) for t in tensors_in(value_of(key[0]))}:
                del self._shared[key]

    def forget_all(self) -> None:
        """Stop sharing every cast."""
        self._shared.clear()

    def _may_share(self, node: fx.Node, state: AutocastState) -> bool:
        value = value_of(node)
        if not (self.grad_enabled and value.requires_grad):
            return True
        return state.cache_enabled and value.is_leaf and value.dtype is torch.float32

    def _source_of_widening(self, node: fx.Node, dtype: torch.dtype) -> fx.Node | None:
        """Return what an inserted cast to float32 was made from, if that has the wanted dtype already."""
        if not is_inserted_cast(node) or value_of(node).dtype is not torch.float32:
            return None
        source = node.args[0]
        assert isinstance(source, fx.Node)
        # The widening cast may be shared only while its source is unwritten, so the source still holds the value.
        shared = self._shared.get((source, torch.float32, self.grad_enabled)) is node
        return source if shared and dtype in LOWER_DTYPES and value_of(source).dtype is dtype else None


def insert_cast(node: fx.Node, dtype: torch.dtype, user: fx.Node) -> fx.Node:
    """Insert ``node.to(dtype)`` before ``user``, whose stack trace and module the cast carries."""
    with node.graph.inserting_before(user):
        cast = node.graph.call_method("to", (node, dtype))
    cast.meta.update({key: user.meta[key] for key in _COPIED_META if key in user.meta})
    cast.meta[CAST_KEY] = str(user.target)
    set_value(cast, value_of(node).to(dtype))
    return cast
