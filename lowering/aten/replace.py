"""Puts other values in place of casts, where nothing can tell one from the other.

A cast is dense memory of its own, and what stands in for it often is a view: in other memory, with other strides.
Refused is a stand-in

- in memory of an input or memory that something sees (the caller, a write, an op that reads strides): what is written
  there later would show. So would a backward that keeps it;
- for a cast that is seen itself, unless it is in new memory, of its own, laid out alike;
- with other strides, where a view behind the cast would not exist or an op behind it would return other strides.

The values of the views behind a replaced cast are computed anew.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from xpu_amp_dynamo.compat.op_types import OpOverload
from xpu_amp_dynamo.lowering.aten.edit import base_of, evaluate
from xpu_amp_dynamo.lowering.aten.memory import Memory, viewed_by
from xpu_amp_dynamo.lowering.graph.values import tensors_in, value_of

Values = dict[fx.Node, Any]
# Ops that make new symbols whenever they run.
MAKING_SYMBOLS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Replacer:
    """Replaces casts of a graph whose memories are known."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._shared: set[fx.Node] = set()
        self._exclusive: set[fx.Node] = set()

    def replace(self, stand_ins: Mapping[fx.Node, fx.Node | None]) -> bool:
        """Put nodes in place of casts, all or none; tell whether it was all.

        Args:
            stand_ins: what to put in place of each cast; None refuses.
        """
        new = {cast: node for cast, node in stand_ins.items() if node is not None}
        if len(new) < len(stand_ins) or not self._may_stand_in(new):
            return False
        values = _values_behind({cast: value_of(node) for cast, node in new.items()})
        if values is None:
            return False
        for node, value in values.items():
            node.meta["val"] = value
        for cast, node in new.items():
            cast.replace_all_uses_with(node)
            (self._exclusive if self._memory.is_seen(cast) else self._shared).add(base_of(node))
        return True

    def _may_stand_in(self, stand_ins: Mapping[fx.Node, fx.Node]) -> bool:
        """Tell whether no two of these, and no other value, would share a memory that is seen."""
        bases = Counter(map(base_of, stand_ins.values()))
        for cast, node in stand_ins.items():
            base = base_of(node)
            new = not self._memory.knows(base)
            if self._memory.is_seen(cast):
                alone = bases[base] == 1 and base not in self._shared | self._exclusive
                fits = new and alone and same_layout(value_of(cast), value_of(node), whole=True)
            else:
                hidden = new or not (self._memory.is_input(base) or self._memory.is_seen(base))
                fits = hidden and base not in self._exclusive
            if not fits:
                return False
        return True


def _values_behind(changed: Values) -> Values | None:
    """Return new values for the views of changed nodes; None if these, or what reads them, change otherwise."""
    values, readers = dict(changed), dict[fx.Node, None]()
    pending = list(changed)
    while pending:
        node = pending.pop()
        moved = not same_layout(value_of(node), values[node])
        for user in node.users:
            if viewed_by(user):
                values[user] = _run(user, values)
                if values[user] is None:
                    return None
                pending.append(user)
            elif moved and user.op != "output":
                readers[user] = None
    return values if all(same_layout(value_of(reader), _run(reader, values)) for reader in readers) else None


def _run(node: fx.Node, values: Values) -> Any:
    """Return what a call gives on changed values, None if it refuses them or cannot run again."""
    if isinstance(node.target, OpOverload) and MAKING_SYMBOLS & set(node.target.tags):
        return None
    assert callable(node.target)
    try:
        return evaluate(node.target, node.args, node.kwargs, values)
    except (RuntimeError, ValueError):  # what ops raise that refuse strides
        return None


def same_layout(one: Any, other: Any, whole: bool = False) -> bool:
    """Tell whether two values surely are tensors of the same dtypes, sizes and strides.

    Args:
        one: a tensor or several.
        other: the same, or None.
        whole: whether they must also have the same place in memories of the same size.
    """
    pairs = list(zip(tensors_in(one), tensors_in(other), strict=False))
    return len(pairs) == len(tensors_in(one)) == len(tensors_in(other)) and all(
        a.dtype is b.dtype and a.ndim == b.ndim and all(map(_surely_equal, _places(a, whole), _places(b, whole)))
        for a, b in pairs
    )


def _places(tensor: torch.Tensor, whole: bool) -> list[int | torch.SymInt]:
    place = [tensor.storage_offset(), tensor.untyped_storage().nbytes()] if whole else []
    return [*tensor.shape, *tensor.stride(), *place]


def _surely_equal(one: int | torch.SymInt, other: int | torch.SymInt) -> bool:
    return bool(statically_known_true(operator.eq(one, other)))
