"""Computes out of place what a program writes into memory of its own that nothing else shows.

before:  y = linear(x, w); y.add_(r); z = relu_(y)
after:   y = linear(x, w); y1 = y.add(r); z = y1.relu()

A write keeps the memory that it writes to in the dtype it was captured with, see ``pin_captured_dtypes``. Most programs
write in place to save memory, which a compiler does by itself; out of place the values may stay in the lower precision.
Left alone: memory of which views are read after a write or of which outputs show several, memory of inputs, writes that
change dtype, size or strides of the result when they are made out of place, and all writes inside regions.
"""

from __future__ import annotations

import itertools
import operator
from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from xpu_amp_dynamo.compat.functorch import is_wrapped
from xpu_amp_dynamo.compat.op_types import OpOverload, overload_name
from xpu_amp_dynamo.lowering.captured.pin_captured_dtypes import shared_by_outputs
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.fake_run import REFUSALS, run_node
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS, arguments_of, base_op_name, is_higher_order
from xpu_amp_dynamo.lowering.graph.values import storage_of, tensors_in, value_of
from xpu_amp_dynamo.lowering.graph.writes import is_called_in_place, mutated_inputs, returns_first_input
from xpu_amp_dynamo.policy.cast_rule import is_eligible
from xpu_amp_dynamo.policy.tables import narrow_safe

_REPLACEABLE = frozenset((*narrow_safe.POINTWISE, *narrow_safe.ARITHMETIC))
_OPERATORS: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
# What a node calls: op, target, arguments and keyword arguments.
_Call = tuple[str, Any, tuple[Any, ...], dict[str, Any]]


def replace_in_place(gm: fx.GraphModule, context: LoweringContext) -> bool:
    """Replace in-place calls on memory that only the program's own names show; tell whether there were any."""
    holders, writers = _by_storage(gm.graph)
    shared = shared_by_outputs(gm.graph)
    changed = False
    for storage, writes in writers.items():
        if storage not in shared and _are_replaceable(holders[storage], writes, context):
            changed |= _replace_all(holders[storage][0], writes)
    return changed


def _by_storage(graph: fx.Graph) -> tuple[dict[int, list[fx.Node]], dict[int, list[fx.Node]]]:
    """Map storages to the nodes that hold tensors in them, and to those that write to them."""
    holders: dict[int, list[fx.Node]] = defaultdict(list)
    writers: dict[int, list[fx.Node]] = defaultdict(list)
    for node in graph.nodes:
        for found, values in ((holders, [value_of(node)]), (writers, list(map(value_of, mutated_inputs(node))))):
            for storage in dict.fromkeys(storage_of(tensor) for tensor in tensors_in(values)):
                if storage is not None:
                    found[storage].append(node)
    return holders, writers


def _are_replaceable(holders: list[fx.Node], writes: list[fx.Node], context: LoweringContext) -> bool:
    """Tell whether all writes to a memory can be made out of place."""
    maker, *later = holders
    value, names = value_of(maker), {maker, *writes}
    return (
        maker.op in CALLS
        and not is_higher_order(maker)
        and maker not in writes
        and isinstance(value, torch.Tensor)
        and not is_wrapped(value)
        and is_eligible(value)
        and all(_is_simple(write, context) and write.args[0] in names for write in writes)
        and all(node in names or _is_read_before(node, writes) for node in later)
    )


def _is_simple(write: fx.Node, context: LoweringContext) -> bool:
    """Tell whether a write has an out-of-place form that may stay narrow, and stands where values may."""
    state = context.states[write]
    plain = returns_first_input(write) and "out" not in write.kwargs
    return plain and state.enabled and not state.in_region and _out_of_place(write) is not None


def _is_read_before(view: fx.Node, writes: list[fx.Node]) -> bool:
    """Tell whether everything that reads a view comes before the first write behind it, so that none shows in it."""
    behind = next((write for write in writes if view < write), None)
    return behind is None or all(user <= behind for user in view.users)


def _replace_all(maker: fx.Node, writes: list[fx.Node]) -> bool:
    """Make writes out of place and have what comes behind each read its result; none, if one gives something else."""
    before = [(write, _call_of(write)) for write in writes]
    for write in writes:
        _set_call(write, _out_of_place(write))
    if not all(map(_keeps_its_form, writes)):
        for write, call in before:
            _set_call(write, call)
        return False
    for name, write in itertools.pairwise((maker, *writes)):
        for user in list(name.users):
            if write < user:
                user.replace_input_with(name, write)
    return True


def _out_of_place(write: fx.Node) -> _Call | None:
    """Return the call that computes what an in-place call writes; None if there is none, or it may not stay narrow."""
    name, target = base_op_name(write), write.target
    if target in _OPERATORS:
        return "call_function", _OPERATORS[target], write.args, dict(write.kwargs)
    if name not in _REPLACEABLE:
        return None
    if is_called_in_place(write):
        first, *_ = write.args
        given = {**arguments_of(write), "inplace": False}
        return "call_function", target, (first,), dict(itertools.islice(given.items(), 1, None))
    if isinstance(target, OpOverload):
        overload = getattr(getattr(torch.ops.aten, name, None), overload_name(target), None)
        return ("call_function", overload, write.args, dict(write.kwargs)) if overload else None
    if hasattr(torch.Tensor, name):
        return "call_method", name, write.args, dict(write.kwargs)
    function = getattr(F, name, None)
    return ("call_function", function, write.args, dict(write.kwargs)) if function else None


def _call_of(node: fx.Node) -> _Call:
    return node.op, node.target, node.args, dict(node.kwargs)


def _set_call(node: fx.Node, call: _Call | None) -> None:
    assert call is not None
    node.op, node.target, node.args, node.kwargs = call


def _keeps_its_form(node: fx.Node) -> bool:
    """Tell whether a call gives a tensor of the dtype, size and strides that its node has."""
    try:
        new, old = run_node(node), value_of(node)
    except REFUSALS:
        return False
    return isinstance(new, torch.Tensor) and _form_of(new) == _form_of(old)


def _form_of(tensor: torch.Tensor) -> tuple[torch.dtype, str, str]:
    """Describe a tensor; sizes as text, which does not guard on symbols."""
    return tensor.dtype, str(tuple(tensor.shape)), str(tensor.stride())
