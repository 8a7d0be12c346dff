"""Says which calls may read a value in the lower precision though the program was captured with it in float32.

A captured program holds what Python made of its dtypes: constants such as ``torch.finfo(scores.dtype).min``, branches,
buffers. So a value goes on in the lower dtype only through ops that do not care, see ``policy/tables/narrow_safe.py``,
and beside numbers that the lower dtype holds. Whatever else touches it gets the captured dtype.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.pytree import leaves_of
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.node_kind import arguments_of, op_name_of
from xpu_amp_dynamo.lowering.graph.values import tensors_in, value_of
from xpu_amp_dynamo.policy.tables import narrow_safe as table

_ATTRIBUTES = frozenset(("T", "mT", "device", "ndim", "shape"))
_METADATA = frozenset(table.METADATA)
_CONVERSIONS = frozenset(table.CONVERSIONS)
_BY_FIRST_ARGUMENT = frozenset((*table.LAYOUT, *table.CONVERSIONS, *table.NORMALISATION, *table.NEIGHBOURHOOD))
_BY_ALL_ARGUMENTS = frozenset((*table.POINTWISE, *table.ARITHMETIC, *table.JOINS))
_WITH_NUMBERS = frozenset((*table.POINTWISE, *table.ARITHMETIC, "pad"))


def may_read_narrow(node: fx.Node, context: LoweringContext) -> bool:
    """Tell whether a call may read the values that its inputs have now, in other dtypes than captured.

    Args:
        node: a call that writes to none of its inputs but statistics.
        context: the lowering in hand.
    """
    name = op_name_of(node)
    if node.target is builtins.getattr:
        return node.args[1] in _ATTRIBUTES
    if name in _METADATA:
        return True
    tensors = tensors_in(fx.map_arg((node.args, node.kwargs), value_of))
    plain = all(context.on_device(tensor) and tensor.layout is torch.strided for tensor in tensors)
    if not plain or _names_a_dtype(node) > (name in _CONVERSIONS) or _has_unsafe_setting(node):
        return False
    dtypes = {tensor.dtype for tensor in tensors} - {torch.bool}
    if name in _WITH_NUMBERS and not all(_numbers_fit(node, dtype) for dtype in dtypes):
        return False
    if name in table.ARITHMETIC and torch.float16 in dtypes:
        return False
    if name in _BY_ALL_ARGUMENTS:
        return len(dtypes) == 1
    return name in _BY_FIRST_ARGUMENT and _only_first_counts(node, context)


def _numbers_fit(node: fx.Node, dtype: torch.dtype) -> bool:
    """Tell whether a dtype holds all numbers among a call's arguments: none overflows or becomes zero or one.

    Infinities and NaN are held as they are. A symbolic number, whose value is not known, does not fit.
    """
    return all(_fits(number, dtype) for number in _numbers(node))


def _fits(number: float, dtype: torch.dtype) -> bool:
    if not dtype.is_floating_point or not math.isfinite(number) or number == 0:
        return True
    finfo = torch.finfo(dtype)
    next_to_one = 0 < abs(abs(number) - 1) <= finfo.eps / 2
    return finfo.smallest_normal <= abs(number) <= finfo.max and not next_to_one


def _numbers(node: fx.Node) -> Iterable[float]:
    """List the numbers among a call's arguments; a symbolic one counts as larger than any dtype holds."""
    for leaf in leaves_of((node.args, node.kwargs)):
        if isinstance(leaf, fx.Node):
            if isinstance(value_of(leaf), (torch.SymInt, torch.SymFloat)):
                yield torch.finfo(torch.float64).max
        elif isinstance(leaf, complex):
            yield abs(leaf)
        elif isinstance(leaf, (int, float)):
            yield leaf


def _has_unsafe_setting(node: fx.Node) -> bool:
    """Tell whether a call is told to round, or to do what no kernel for lower dtypes does."""
    given = arguments_of(node)
    return any(given.get(name) not in (None, False) for name in ("rounding_mode", "antialias"))


def _names_a_dtype(node: fx.Node) -> bool:
    """Tell whether a dtype is among a call's arguments."""
    given: list[Any] = leaves_of((node.args, node.kwargs))
    return any(isinstance(leaf, torch.dtype) for leaf in given)


def _only_first_counts(node: fx.Node, context: LoweringContext) -> bool:
    """Tell whether a call's first argument alone is narrow: others are indices, sizes, or parameters of a norm."""
    name = str(op_name_of(node))
    first = node.args[0] if node.args else None
    others = [n for n in node.all_input_nodes if n is not first]
    if not isinstance(first, fx.Node) or name.endswith("_as"):
        return isinstance(first, fx.Node)
    if name in table.NORMALISATION:
        return all(map(context.is_as_recorded, others))
    return not any(t.is_floating_point() for n in others for t in tensors_in(value_of(n)))
