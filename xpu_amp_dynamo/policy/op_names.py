"""Names of ops: what a user, a callable or an overload calls the op that a policy lists.

The name of an ATen op is its bare name (``"conv2d"``); any other op carries its namespace
(``"mylib::attention"``). A name stands for all out-of-place overloads of the op.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from xpu_amp_dynamo.compat.dispatcher import is_implemented, registered_op_names
from xpu_amp_dynamo.compat.op_types import (
    CustomOpDef,
    OpOverload,
    OpOverloadPacket,
    custom_op_name,
    qualified_name,
    schema_of,
)
from xpu_amp_dynamo.errors import UnknownOpError

# Names under which a listed op also arrives: Python functions, methods, operators, and composites that do
# nothing but call the one op on their own arguments.
ALIASES = {
    "__matmul__": "matmul",
    "imatmul": "matmul",
    "linalg_matmul": "matmul",
    "cross_entropy": "cross_entropy_loss",
    "special_log_softmax": "log_softmax",
    "special_softmax": "softmax",
    "concat": "cat",
    "concatenate": "cat",
    "truediv": "div",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "pos": "positive",
    "invert": "bitwise_not",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}

# What an operator calls when its first operand is a number: the tensor's reflected method. That of a division, None,
# is a composite of `reciprocal` and `mul`.
REFLECTED: dict[str, str | None] = {"sub": "rsub", "truediv": None}

# Python functions of these modules are named after the op that they call on their own arguments.
FUNCTIONAL_MODULES = ("torch.nn.functional", "torch.functional", "torch._tensor")

# Augmented assignments write into their first operand. `a @= b` does not: it rebinds `a`.
IN_PLACE_OPERATORS = frozenset(
    (
        *("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iconcat"),
        *("iand", "ior", "ixor", "ilshift", "irshift", "setitem", "delitem"),
    )
)


def resolve_op(op: str | Callable[..., Any]) -> str:
    """Return the name under which a policy lists an op.

    Args:
        op: a name (``"softmax"``, ``"aten::softmax"``, ``"mylib::attention"``), a callable
            (``torch.nn.functional.softmax``), an ``OpOverload`` or ``OpOverloadPacket``, or what
            ``torch.library.custom_op`` returned.

    Returns:
        The bare name of an ATen op, the namespaced name of any other.

    Raises:
        UnknownOpError: nothing of that name is registered, or only in-place and ``out=`` forms of it.
    """
    name = op if isinstance(op, str) else callable_name(op)
    if name is None:
        raise UnknownOpError(
            f"{op!r} stands for no out-of-place op; name the op, for example 'softmax' or 'mylib::attention'"
        )
    name = name.removeprefix("aten::")
    name = ALIASES.get(name, name)
    if not overloads_of(name):
        raise UnknownOpError(_unknown_message(op, name))
    return name


def callable_name(function: Callable[..., Any]) -> str | None:
    """Return the op name that a callable goes by.

    None for in-place forms and for Python functions outside PyTorch's functional namespaces, whose names mean
    nothing. Other names are not checked: a function that is no op at all returns its own name.
    """
    if isinstance(function, CustomOpDef):
        return custom_op_name(function)
    if isinstance(function, OpOverload):
        return None if schema_of(function).is_mutable else _canonical(qualified_name(function))
    if isinstance(function, OpOverloadPacket):
        return _canonical(qualified_name(function))
    if inspect.isfunction(function) and function.__module__ not in FUNCTIONAL_MODULES:
        return None
    name = target_name(function)
    if not name or is_in_place_operator(function) or is_in_place_name(name):
        return None
    return ALIASES.get(name, name)


def target_name(target: object) -> str:
    """Return the name of a method or function that a graph calls, that of ``operator.and_`` as ``"and"``."""
    if isinstance(target, str):
        return target
    name = str(getattr(target, "__name__", ""))
    return name.rstrip("_") if _is_operator(target) else name


def is_in_place_operator(target: object) -> bool:
    """Tell whether a function is that of an augmented assignment which writes into its first operand."""
    return _is_operator(target) and target_name(target) in IN_PLACE_OPERATORS


def reflected_name(target: object) -> str | None:
    """Return the op that an operator calls on a number and a tensor behind it, None for a composite."""
    name = target_name(target)
    return REFLECTED[name] if name in REFLECTED else ALIASES.get(name, name)


def is_reflected(target: object, args: Sequence[object]) -> bool:
    """Tell whether a call is of an operator on a number and something else behind it, in a graph a node."""
    return _is_operator(target) and len(args) == 2 and isinstance(args[0], (bool, int, float, complex))


def _is_operator(target: object) -> bool:
    return getattr(target, "__module__", None) == "_operator"


def is_in_place_name(name: str) -> bool:
    """Tell whether PyTorch's naming marks a method or function as in-place (``add_``, ``__iadd__``)."""
    if name.startswith("__") and name.endswith("__"):
        return name.strip("_") in IN_PLACE_OPERATORS
    return name.endswith("_")


def overloads_of(name: str) -> tuple[OpOverload, ...]:
    """Return the out-of-place overloads of a named op that take a tensor; empty if there is no such op."""
    namespace, _, base = name.rpartition("::")
    return _find_overloads(namespace, base) if namespace else _overloads_of_aten(base)


@functools.cache
def _overloads_of_aten(base: str) -> tuple[OpOverload, ...]:
    """Find the overloads of an ATen op once; other libraries may take their ops away and define them anew."""
    return _find_overloads("aten", base)


def _find_overloads(namespace: str, base: str) -> tuple[OpOverload, ...]:
    """Return the out-of-place overloads that are registered now."""
    packet = getattr(getattr(torch.ops, namespace), base, None)
    if not isinstance(packet, OpOverloadPacket):
        return ()
    overloads = (getattr(packet, overload) for overload in packet.overloads())
    return tuple(o for o in overloads if _takes_tensor(o) and not schema_of(o).is_mutable)


def _takes_tensor(op: OpOverload) -> bool:
    """Tell whether the dispatcher knows the op and one of its arguments is a tensor or holds tensors."""
    tensor = any("Tensor" in str(argument.type) for argument in schema_of(op).arguments)
    return tensor and is_implemented(op.name())


def _canonical(qualified: str) -> str:
    """Drop the namespace of an ATen op."""
    return qualified.removeprefix("aten::")


def _unknown_message(given: object, name: str) -> str:
    """Say which op is not known and which known names come near."""
    known = {_canonical(n).partition(".")[0] for n in registered_op_names()}
    near = [match for match in difflib.get_close_matches(name, known, n=3, cutoff=0.6) if overloads_of(match)]
    hint = f"near matches: {', '.join(near)}" if near else "names are those of torch.ops, such as 'softmax'"
    return f"unknown op {given!r}: no out-of-place op {name!r} is registered; {hint}"
