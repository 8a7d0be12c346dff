"""Casts in a graph: makes them, shares them, and knows them again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.op_types import OpOverload
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.functorch_levels import without_wrappers
from xpu_amp_dynamo.lowering.graph.values import is_exported, storage_of, tensors_in, value_keys, value_of
from xpu_amp_dynamo.policy.cast_rule import LOWER_DTYPES

# Marks the casts that the lowering made; the value is the op that the cast serves.
CAST_KEY = "xpu_amp_dynamo.cast_for"
# The identity of a value, the dtype it is cast to, and within what the cast is shared.
_Key = tuple[int, torch.dtype, int | None]
_COPIED_META = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom")


def is_inserted_cast(node: fx.Node) -> bool:
    """Tell whether the lowering made this cast."""
    return CAST_KEY in node.meta


def is_traced_cast(node: fx.Node) -> bool:
    """Tell whether a node of a traced graph only casts its input."""
    return node.target is torch.ops.aten._to_copy.default and set(node.kwargs) == {"dtype"}


class Caster:
    """Inserts casts into one graph, one per value and dtype.

    A cast is shared by later uses until the value is written to. Values on the tape are the exception: eager
    autocast casts an activation anew at each use and so adds up its gradients in float32, where one shared
    cast would add them up in the lower precision. Their casts stay apart, bit-equal to eager; AOTAutograd
    merges the forward copies after it has built the backward. Leaf parameters are shared, as in eager: until the
    outermost region ends.
    """

    def __init__(self) -> None:
        # Casts, each with the value that it was made from: nodes that return their input, as no-op casts do, share it.
        self._shared: dict[_Key, tuple[torch.Tensor, fx.Node]] = {}
        self._keys_of: dict[int | None, list[_Key]] = defaultdict(list)

    def cast(self, node: fx.Node, dtype: torch.dtype, user: fx.Node, state: AutocastState) -> fx.Node:
        """Return a node that holds ``node`` in ``dtype``, placed before ``user`` if it is new."""
        source = self._source_of_widening(node, dtype, state)
        if source is not None:
            return source
        key = (id(value_of(node)), dtype, self._tape_of(node, state))
        if key not in self._shared or not self._may_share(node, state):
            self._shared[key] = value_of(node), insert_cast(node, dtype, user)
            self._keys_of[storage_of(value_of(node))].append(key)
        return self._shared[key][1]

    def forget(self, written: Iterable[fx.Node]) -> None:
        """Stop sharing the casts of values whose memory has been written to."""
        for storage in {storage_of(t) for node in written for t in tensors_in(value_of(node))}:
            for key in self._keys_of.pop(storage, ()):
                self._shared.pop(key, None)

    def forget_all(self) -> None:
        """Stop sharing every cast."""
        self._shared.clear()
        self._keys_of.clear()

    def _tape_of(self, node: fx.Node, state: AutocastState) -> int | None:
        """Return within what the casts of a value are shared: None without a tape, else the outermost region."""
        return state.outermost if _is_on_tape(node, state) else None

    def _may_share(self, node: fx.Node, state: AutocastState) -> bool:
        value = value_of(node)
        if not _is_on_tape(node, state):
            return True
        return state.cache_enabled and value.is_leaf and value.dtype is torch.float32

    def _source_of_widening(self, node: fx.Node, dtype: torch.dtype, state: AutocastState) -> fx.Node | None:
        """Return what an inserted cast to float32 was made from, if that has the wanted dtype already."""
        if not is_inserted_cast(node) or value_of(node).dtype is not torch.float32:
            return None
        source = node.args[0]
        assert isinstance(source, fx.Node)
        # The widening cast may be shared only while its source is unwritten, so the source still holds the value.
        _, shared = self._shared.get((id(value_of(source)), torch.float32, self._tape_of(source, state)), (None, None))
        return source if shared is node and dtype in LOWER_DTYPES and value_of(source).dtype is dtype else None


def _is_on_tape(node: fx.Node, state: AutocastState) -> bool:
    return state.grad_enabled and value_of(node).requires_grad


def insert_cast(node: fx.Node, dtype: torch.dtype, user: fx.Node) -> fx.Node:
    """Insert ``node.to(dtype)`` before ``user``, whose stack trace and module the cast carries."""
    cast = insert_conversion(node, dtype, user, like=user)
    cast.meta[CAST_KEY] = str(user.target)
    return cast


def insert_conversion(node: fx.Node, dtype: torch.dtype, before: fx.Node, *, like: fx.Node) -> fx.Node:
    """Insert ``node.to(dtype)`` before a node, with the stack trace and module of another, and return it."""
    with node.graph.inserting_before(before):
        conversion = _conversion(node, dtype)
    _describe(conversion, without_wrappers(value_of(node)).to(dtype), node, like=like)
    return conversion


def insert_copy(node: fx.Node, user: fx.Node) -> fx.Node:
    """Insert ``node.clone()`` before ``user``."""
    with node.graph.inserting_before(user):
        copy = _call(node, "clone", torch.ops.aten.clone.default)
    _describe(copy, value_of(node).clone(), node, like=user)
    return copy


def cast_behind(node: fx.Node, recorded: torch.Tensor) -> fx.Node:
    """Insert ``node.to(dtype)`` with the dtype of a recorded value, for all users of a node, and return it."""
    cast = convert_behind(node, recorded)
    mark_as_cast(cast)
    return cast


def mark_as_cast(conversion: fx.Node) -> None:
    """Have a conversion that was inserted behind a node count as a cast of the lowering, made for what it converts."""
    conversion.meta[CAST_KEY] = str(conversion.all_input_nodes[0].target)


def convert_behind(node: fx.Node, value: torch.Tensor) -> fx.Node:
    """Insert a conversion that gives a value, for all users of a node, and return it."""
    with node.graph.inserting_after(node):
        new = _conversion(node, value.dtype)
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    _describe(new, value, node, like=node)
    return new


def _describe(new: fx.Node, value: torch.Tensor, source: fx.Node, like: fx.Node) -> None:
    """Give a new node a value, under the keys of its source, and the stack trace and module of another node."""
    new.meta.update({key: like.meta[key] for key in _COPIED_META if key in like.meta})
    new.meta.update(dict.fromkeys(value_keys(source), value))


def _conversion(node: fx.Node, dtype: torch.dtype) -> fx.Node:
    return _call(node, "to", torch.ops.aten.to.dtype, dtype)


def _call(node: fx.Node, method: str, op: OpOverload, *arguments: Any) -> fx.Node:
    """Call a method of a node, or in graphs of export, which may call nothing else, the op that it stands for."""
    if is_exported(node.graph):
        return node.graph.call_function(op, (node, *arguments))
    return node.graph.call_method(method, (node, *arguments))
