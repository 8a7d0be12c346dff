"""Runs a node on the values of its inputs, to learn the value that it has in the lowered graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.fake_tensors import with_python_kernels
from xpu_amp_dynamo.compat.pytree import leaves_of, map_tensors, with_leaves
from xpu_amp_dynamo.lowering.graph.values import dtypes_in, input_values, tensors_in, value_of
from xpu_amp_dynamo.lowering.graph.writes import mutated_inputs, returns_first_input

# What ops raise that refuse their inputs.
REFUSALS = (RuntimeError, TypeError, ValueError, IndexError, AssertionError)


def run_node(node: fx.Node) -> Any:
    """Return what a call gives for the values that its inputs have now.

    Must run inside the graph's fake tensor mode with autocast off. Raises what the op raises.
    """
    return call_fake(node, *input_values(node))


def call_fake(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Call a node's target as capture does: with symbolic sizes some composites run in Python only, torch 2.13.0."""
    with with_python_kernels():
        return call_target(node, args, kwargs)


def call_target(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Call the function or method of a node on other arguments."""
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def run_mutation(node: fx.Node) -> Any:
    """Return the value of an in-place or ``out=`` call, leaving the values of its inputs as they are."""
    args, kwargs = input_values(node)
    args, kwargs = map_tensors(torch.clone, (args, kwargs))
    with torch.no_grad():
        call_fake(node, args, kwargs)
    recorded = value_of(node)
    if not returns_first_input(node):
        return recorded
    written = value_of(mutated_inputs(node)[-1])
    return written if written.shape == recorded.shape else recorded.to(written.dtype)


def with_recorded_sizes(new: Any, recorded: Any) -> Any:
    """Return a recomputed value in the sizes that capture recorded.

    A rerun of an op whose output size depends on data (``nonzero``, ``masked_select``) makes a new symbol for
    it, while the graph goes on with the recorded one.
    """
    if dtypes_in(new) == dtypes_in(recorded):
        return recorded if _sizes_differ(new, recorded) else new
    if not _sizes_differ(new, recorded):
        return new
    return with_leaves(new, map(_in_dtype_of, leaves_of(recorded), leaves_of(new)))


def _in_dtype_of(recorded: Any, new: Any) -> Any:
    """Return the recorded value in the dtype of the new one."""
    return recorded.to(new.dtype) if isinstance(new, torch.Tensor) else recorded


def _sizes_differ(new: Any, recorded: Any) -> bool:
    """Tell whether two nested values hold tensors of other symbolic sizes."""
    pairs = zip(_sizes(new), _sizes(recorded), strict=True)
    return any(a != b for a, b in pairs)


def _sizes(value: Any) -> list[str]:
    """List the sizes of the tensors in a nested value as text, which does not guard on symbols."""
    return [str(tuple(t.shape)) for t in tensors_in(value)]
