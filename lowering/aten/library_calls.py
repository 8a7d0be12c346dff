"""What stands between casts and calls of libraries, which fuse neither what comes before them nor what comes after."""

from __future__ import annotations

import operator

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.torch_version import TorchVersion

from xpu_amp_dynamo.compat.pytree import leaves_of
from xpu_amp_dynamo.lowering.aten.edit import is_view, source_of
from xpu_amp_dynamo.lowering.aten.ops import CAST, CONVOLUTIONS, LIBRARY_CALLS, aten

# Whether Inductor counts the blocks of each tensor where one kernel casts several and lays them out anew, as
# convolutions want it. Where it launches as many for each as the largest needs, the weights of a U-Net take 0.64 ms
# and not 0.01 (NVIDIA H200, torch 2.11.0). Its code for 2.13.0 was read, not timed.
LAYOUTS_SHARE_KERNELS = TorchVersion(torch.__version__) >= TorchVersion("2.13")


def feeds_only_library_calls(node: fx.Node) -> bool:
    """Tell whether every use of a value, through views, is a library call or the graph's output.

    What computes such a value is a kernel of its own.
    """
    pending = [node]
    while pending:
        value = pending.pop()
        for user in value.users:
            if user.op == "call_function" and is_view(user):
                pending.append(user)
            elif user.op != "output" and (user.target not in LIBRARY_CALLS or _is_touched_before(value, user)):
                return False
    return True


def _is_touched_before(node: fx.Node, user: fx.Node) -> bool:
    """Tell whether Inductor puts a kernel, which can cast, between a value and the library call that uses it.

    So it does for biases of convolutions, which it adds behind the library's kernel, and for convolutions in one
    dimension, for which it brings the operands into the layout of those in two. Checked on torch 2.13.0.
    """
    if user.target == aten.convolution.default and (user.args[2] is node or node.meta["val"].ndim == 3):
        return True
    return is_cast_alone(user)


def is_cast_alone(call: fx.Node) -> bool:
    """Tell whether casts of what a library call reads or returns should be kernels of their own, for their layout."""
    return call.target in CONVOLUTIONS and not LAYOUTS_SHARE_KERNELS


def result_used_once(node: fx.Node) -> fx.Node | None:
    """Return the library call of whose result a node is a view, None if it is none or anything else uses it."""
    while node.op == "call_function" and is_view(node) and len(node.users) == 1:
        node = source_of(node)
    return library_call_of(node) if len(node.users) == 1 else None


def library_call_of(node: fx.Node) -> fx.Node | None:
    """Return the library call that a node is the result of, or one of the results of."""
    called = source_of(node) if node.target is operator.getitem else node
    return called if called.target in LIBRARY_CALLS else None


def feeds_a_kernel(result: fx.Node) -> bool:
    """Tell whether some use of a value, through views and casts, computes as many elements.

    Such a kernel, unlike one that gathers or repeats elements, could do casts of the value on the side.
    """
    size = result.meta["val"].numel()
    pending = [result]
    while pending:
        for user in pending.pop().users:
            if user.op == "output" or user.target in LIBRARY_CALLS:
                continue
            if is_view(user) or user.target == CAST:
                pending.append(user)
            elif not statically_known_true(_size_of(user) != size):
                return True
    return False


def _size_of(node: fx.Node) -> int | torch.SymInt:
    """Return the number of elements that a node computes, those of its first tensor if there are several."""
    return next(leaf.numel() for leaf in leaves_of(node.meta["val"]) if isinstance(leaf, torch.Tensor))
