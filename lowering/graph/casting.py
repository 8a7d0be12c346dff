"""Casts in a graph: makes them, shares them, and knows them again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import fx

from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.functorch_levels import without_wrappers
from xpu_amp_dynamo.lowering.graph.values import storage_of, tensors_in, value_keys, value_of
from xpu_amp_dynamo.policy.cast_rule import LOWER_DTYPES

# Marks the casts that the lowering made; the value is the op that the cast serves.
CAST_KEY = "xpu_amp_dynamo.cast_for"
# The identity of a value, the dtype it is cast to, and within what the cast is shared.
_Key = tuple[int, torch.dtype, int | None]
# Marks what ``pin_written_values`` inserts, until it turns out to be a cast or to do nothing.
_PIN_KEY = "xpu_amp_dynamo.pin"
_COPIED_META = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom")


def is_inserted_cast(node: fx.Node) -> bool:
    """Tell whether the lowering made this cast."""
    return CAST_KEY in node.meta


def is_traced_cast(node: fx.Node) -> bool:
    """Tell whether a node of a traced graph only casts its input."""
    return node.target is torch.ops.aten._to_copy.default and set(node.kwargs) == {"dtype"}


def is_pin(node: fx.Node) -> bool:
    """Tell whether a node pins a dtype that lowering may still change."""
    return _PIN_KEY in node.meta


class Caster:
    """Inserts casts into one graph, one per value and dtype.

    A cast is shared by later uses until the value is written to. Values on the tape are the exception: eager
    autocast casts an activation anew at each use and so adds up its gradients in float32, where one shared
    cast would add them up in the lower precision. Their casts stay apart, bit-equal to eager; AOTAutograd
    merges the forward copies after it has built the backward. Leaf parameters are shared, as in eager: until the
    outermost region ends.
    """

    def __init__(self, grad_enabled: bool) -> None:
        # Casts, each with the value that it was made from: nodes that return their input, as no-op casts do, share it.
        self._shared: dict[_Key, tuple[torch.Tensor, fx.Node]] = {}
        self._keys_of: dict[int | None, list[_Key]] = defaultdict(list)
        self.grad_enabled = grad_enabled

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

    def _is_on_tape(self, node: fx.Node) -> bool:
        return self.grad_enabled and value_of(node).requires_grad

    def _tape_of(self, node: fx.Node, state: AutocastState) -> int | None:
        """Return within what the casts of a value are shared: None without a tape, else the outermost region."""
        return state.outermost if self._is_on_tape(node) else None

    def _may_share(self, node: fx.Node, state: AutocastState) -> bool:
        value = value_of(node)
        if not self._is_on_tape(node):
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


def insert_cast(node: fx.Node, dtype: torch.dtype, user: fx.Node) -> fx.Node:
    """Insert ``node.to(dtype)`` before ``user``, whose stack trace and module the cast carries."""
    with node.graph.inserting_before(user):
        cast = node.graph.call_method("to", (node, dtype))
    cast.meta[CAST_KEY] = str(user.target)
    _describe(cast, without_wrappers(value_of(node)).to(dtype), node, like=user)
    return cast


def insert_copy(node: fx.Node, user: fx.Node) -> fx.Node:
    """Insert ``node.clone()`` before ``user``."""
    with node.graph.inserting_before(user):
        copy = node.graph.call_method("clone", (node,))
    _describe(copy, value_of(node).clone(), node, like=user)
    return copy


def insert_pin(node: fx.Node) -> fx.Node:
    """Insert ``node.to(dtype)`` with the dtype that a node has, for all its users, and return it."""
    pin = _insert_behind(node, value_of(node))
    pin.meta[_PIN_KEY] = str(node.target)
    return pin


def cast_behind(node: fx.Node, recorded: torch.Tensor) -> fx.Node:
    """Insert ``node.to(dtype)`` with the dtype of a recorded value, for all users of a node, and return it."""
    cast = _insert_behind(node, recorded)
    cast.meta[CAST_KEY] = str(node.target)
    return cast


def _insert_behind(node: fx.Node, value: torch.Tensor) -> fx.Node:
    """Insert a conversion that gives a value, for all users of a node."""
    with node.graph.inserting_after(node):
        new = node.graph.call_method("to", (node, value.dtype))
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    _describe(new, value, node, like=node)
    return new


def _describe(new: fx.Node, value: torch.Tensor, source: fx.Node, like: fx.Node) -> None:
    """Give a new node a value, under the keys of its source, and the stack trace and module of another node."""
    new.meta.update({key: like.meta[key] for key in _COPIED_META if key in like.meta})
    new.meta.update(dict.fromkeys(value_keys(source), value))


def settle_pin(pin: fx.Node) -> bool:
    """Make a pin a cast if its source has another dtype by now, else take it out; tell whether it is a cast."""
    source, dtype = pin.args
    assert isinstance(source, fx.Node)
    assert isinstance(dtype, torch.dtype)
    if value_of(source).dtype is dtype:
        pin.replace_all_uses_with(source)
        pin.graph.erase_node(pin)
        return False
    pin.meta[CAST_KEY] = pin.meta.pop(_PIN_KEY)
    return True
