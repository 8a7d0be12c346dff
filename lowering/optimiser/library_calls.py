"""What stands between casts and calls of libraries, which fuse neither what comes before them nor what comes after."""

from __future__ import annotations

import operator

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.utils import _pytree as pytree

from xpu_amp_dynamo.lowering.optimiser.edit import is_view, source_of
from xpu_amp_dynamo.lowering.optimiser.ops import CAST, LIBRARY_CALLS, aten


def feeds_only_library_calls(node: fx.Node) -> bool:
    """Tell whether every use of a value, through views, is a library call or the graph's output.

    What computes such a value is a kernel of its own.
    """
    return all(
        user.op == "output"
        or (user.target in LIBRARY_CALLS and not _is_touched_before(node, user))
        or (user.op == "call_function" and is_view(user) and feeds_only_library_calls(user))
        for user in node.users
    )


def _is_touched_before(node: fx.Node, user: fx.Node) -> bool:
    """Tell whether Inductor puts a kernel, which can cast, between a value and the library call that uses it.

    So it does for biases of convolutions, which it adds behind the library's kernel, and for convolutions in one
    dimension, for which it brings the operands into the layout of those in two. Checked on torch 2.13.0.
    """
    return user.target == aten.convolution.default and (user.args[2] is node or node.meta["val"].ndim == 3)


def result_used_once(node: fx.Node) -> fx.Node | None:
    """Return the library call of whose result a node is a view, None if it is none or anything else uses it."""
    if node.op != "call_function" or len(node.users) > 1:
        return None
    if is_view(node):
        return result_used_once(source_of(node))
    called = source_of(node) if node.target is operator.getitem else node
    return called if called.target in LIBRARY_CALLS else None


def stands_alone(cast: fx.Node) -> bool:
    """Tell whether a cast of a library call's result has no kernel nearby that could do it on the side.

    That would be one that reads the same result element by element; one that gathers or repeats elements runs over
    another number of them.
    """
    result = source_of(cast)
    while result.op == "call_function" and is_view(result):
        result = source_of(result)
    if result.op != "call_function":
        return False
    called = source_of(result) if result.target is operator.getitem else result
    return called.target in LIBRARY_CALLS and not _feeds_a_kernel(result, result.meta["val"].numel(), besides=cast)


def _feeds_a_kernel(node: fx.Node, size: int | torch.SymInt, besides: fx.Node) -> bool:
    """Tell whether some use of a value, through views and casts, computes as many elements."""
    for user in node.users:
        if user is besides or user.op == "output" or user.target in LIBRARY_CALLS:
            continue
        if is_view(user) or user.target == CAST:
            if _feeds_a_kernel(user, size, besides):
                return True
        elif not statically_known_true(_size_of(user) != size):
            return True
    return False


def _size_of(node: fx.Node) -> int | torch.SymInt:
    """Return the number of elements that a node computes, those of its first tensor if there are several."""
    return next(leaf.numel() for leaf in pytree.tree_leaves(node.meta["val"]) if isinstance(leaf, torch.Tensor))
