"""What stands between casts and calls of libraries, which fuse neither what comes before them nor what comes after."""

from __future__ import annotations

import operator

from torch import fx

from xpu_amp_dynamo.lowering.optimiser.edit import is_view, source_of
from xpu_amp_dynamo.lowering.optimiser.ops import LIBRARY_CALLS, aten


def feeds_only_library_calls(node: fx.Node) -> bool:
    """Tell whether every use of a value, through views, is a library call or the graph's output.

    What computes such a value is a kernel of its own.
    """
    return all(
        user.op == "output"
        or (user.target in LIBRARY_CALLS and not _is_bias_of_convolution(node, user))
        or (user.op == "call_function" and is_view(user) and feeds_only_library_calls(user))
        for user in node.users
    )


def _is_bias_of_convolution(node: fx.Node, user: fx.Node) -> bool:
    """Tell whether a call adds a node as a bias, which Inductor does in a kernel of its own behind the library's."""
    return user.target == aten.convolution.default and user.args[2] is node


def result_used_once(node: fx.Node) -> fx.Node | None:
    """Return the library call of whose result a node is a view, None if it is none or anything else uses it."""
    if node.op != "call_function" or len(node.users) > 1:
        return None
    if is_view(node):
        return result_used_once(source_of(node))
    called = source_of(node) if node.target is operator.getitem else node
    return called if called.target in LIBRARY_CALLS else None
