"""Traces one call down to the ops that the policy lists inside it.

An unlisted op may contain listed ones: ``einsum`` is a ``bmm`` between permutes, an LSTM cell two ``linear``.
In eager code the dispatcher reaches them; in the graph nothing would. So the one node is traced on its fake
inputs, before autograd and autocast, with each composite op taken apart and each listed op given its casts:

before:  einsum("ij,jk->ik", a, b)                                         # a, b: float32
after:   ... view(permute(a)) -> to(bfloat16) -> bmm(., to(bfloat16)) -> view ...

No table of internals is needed. Ops that call listed ops in compiled kernels are out of reach: see
``policy/tables/opaque.py``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx, py_sym_types

from xpu_amp_dynamo.compat.composites import call_implementation, has_python_implementation, is_composite
from xpu_amp_dynamo.compat.dispatcher import is_implemented, registered_op_names
from xpu_amp_dynamo.compat.op_types import OpOverload, OpOverloadPacket, overload_named
from xpu_amp_dynamo.compat.pytree import leaves_of, map_tensors
from xpu_amp_dynamo.lowering.composites.call_key import key_of
from xpu_amp_dynamo.lowering.composites.layout_ops import LAYOUT_OPS
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.fake_run import REFUSALS, call_target
from xpu_amp_dynamo.lowering.graph.node_kind import op_name_of
from xpu_amp_dynamo.lowering.graph.values import dtypes_in, runnable_value_of, tensors_in, value_of
from xpu_amp_dynamo.policy.cast_rule import is_eligible, needs_cast
from xpu_amp_dynamo.policy.foreign_autocast import has_foreign_autocast
from xpu_amp_dynamo.policy.op_names import is_reflected, overloads_of

Decomposition = Callable[..., Any]
# Calls in which nothing was cast, see ``key_of``.
_NOTHING_INSIDE: set[Hashable] = set()


@dataclass
class _Tracing:
    """One trace: where, whether listed ops are cast in it, whether inputs have other dtypes by now, what was found."""

    context: LoweringContext
    state: AutocastState
    with_casts: bool
    narrow: bool
    found: list[torch.dtype] = field(default_factory=list)


def trace_composite(
    node: fx.Node, context: LoweringContext, state: AutocastState, *, with_casts: bool
) -> fx.GraphModule | None:
    """Return the graph of the ops inside a call; None if it holds no op that the policy casts there.

    Args:
        node: a call that the policy does not list.
        context: the lowering in hand.
        state: the autocast state at the node.
        with_casts: cast the inputs of listed ops in the trace, which is of the values that the inputs have now. Else
            the trace is of the call as captured, of the recorded values.

    Returns:
        A graph whose placeholders are ``node.all_input_nodes`` in order, or None. Its casts are
        ``aten._to_copy`` nodes, see :func:`is_traced_cast`. A call that cannot be traced is left alone: None.
    """
    if not _may_contain_ops(node) or not _has_eligible_input(node, context):
        return None
    inputs = [_value(n, context, with_casts) for n in node.all_input_nodes]
    tracing = _Tracing(context, state, with_casts, narrow=_differ(node.all_input_nodes, inputs))
    key = key_of(node, inputs, (context.policy, context.device_type, state.dtype, tracing.narrow, with_casts))
    if key in _NOTHING_INSIDE:
        return None
    try:
        graph = _trace(node, inputs, _decompositions(tracing))
    except REFUSALS:
        return None
    if not tracing.found:
        if key is not None:
            _remember_nothing_inside(key)
        return None
    return graph


def _value(node: fx.Node, context: LoweringContext, with_casts: bool) -> Any:
    """Return the value of an input to trace with, in the dtype that it has now or in the one that was recorded."""
    now = runnable_value_of(node)
    recorded = context.recorded.get(node)
    if with_casts or not isinstance(now, torch.Tensor) or not isinstance(recorded, torch.Tensor):
        return now
    return now if now.dtype is recorded.dtype else _in_dtype(now, recorded.dtype)


def _in_dtype(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    converted = tensor.detach().to(dtype)
    return converted.requires_grad_(tensor.requires_grad)


def trace_foreign(node: fx.Node, context: LoweringContext, state: AutocastState) -> fx.GraphModule | None:
    """Return the graph of what the autocast kernel of an op's own library does; None if there is no such kernel.

    Args:
        node: a call that the policy does not list.
        context: the lowering in hand.
        state: the autocast state at the node, enabled.

    Returns:
        A graph whose placeholders are ``node.all_input_nodes`` in order. A call that cannot be traced is left alone.
    """
    if not any(has_foreign_autocast(op, context.device_type) for op in _overloads_called(node)):
        return None
    inputs = list(map(runnable_value_of, node.all_input_nodes))
    try:
        with torch.autocast(context.device_type, state.dtype):
            return _trace(node, inputs, {}, pre_dispatch=False)
    except REFUSALS:
        return None


def _overloads_called(node: fx.Node) -> tuple[OpOverload, ...]:
    """Return the overloads of which a call of an op that is not PyTorch's may be."""
    if isinstance(node.target, OpOverload):
        return (node.target,)
    name = op_name_of(node) if isinstance(node.target, OpOverloadPacket) else None
    return overloads_of(name) if name is not None and "::" in name else ()


def _trace(
    node: fx.Node, inputs: list[Any], decompositions: dict[OpOverload, Decomposition], pre_dispatch: bool = True
) -> fx.GraphModule:
    """Trace a call on values of its inputs, before autograd and autocast or behind both."""

    def call(*values: Any) -> Any:
        given = dict(zip(node.all_input_nodes, values, strict=True))
        return call_target(node, *fx.map_arg((node.args, node.kwargs), given.__getitem__))

    return make_fx(call, decomposition_table=decompositions, pre_dispatch=pre_dispatch)(*inputs)


def _decompositions(tracing: _Tracing) -> dict[OpOverload, Decomposition]:
    """Map composite ops to their contents, and listed ops to what notes and casts them."""
    table = dict(_composite_ops())
    for name in tracing.context.policy.categories:
        for op in overloads_of(name):
            table[op] = functools.partial(_listed, op, name, tracing)
    return table


def _listed(op: OpOverload, name: str, tracing: _Tracing, *args: Any, **kwargs: Any) -> Any:
    """Note a listed op if its inputs want a cast, and cast them; NotImplemented stands for the op as it is."""
    context = tracing.context
    on_device = [t for t in tensors_in((args, kwargs)) if context.on_device(t)]
    category = context.policy.categories.get(name)
    wanted = context.wanted_dtype(name, category, (*args, *kwargs.values()), tracing.state.dtype)
    may_be_narrow = tracing.narrow and wanted is torch.float32
    if wanted is None or not (may_be_narrow or any(needs_cast(t, wanted) for t in on_device)):
        return NotImplemented
    tracing.found.append(wanted)
    if not tracing.with_casts:
        return NotImplemented

    def cast(tensor: torch.Tensor) -> torch.Tensor:
        needed = context.on_device(tensor) and needs_cast(tensor, wanted)
        return torch.ops.aten._to_copy.default(tensor, dtype=wanted) if needed else tensor

    args, kwargs = map_tensors(cast, (args, kwargs))
    return op(*args, **kwargs)


@functools.cache
def _composite_ops() -> dict[OpOverload, Decomposition]:
    """Map every ATen op that PyTorch composes of others to the function that takes it apart."""
    table: dict[OpOverload, Decomposition] = {}
    for qualified in registered_op_names():
        namespace, _, name = qualified.partition("::")
        packet = name.partition(".")[0]
        if namespace == "aten" and is_implemented(qualified):
            op = overload_named(qualified)
            if packet not in LAYOUT_OPS and is_composite(op):
                table[op] = functools.partial(_take_apart, op)
    return table


def _take_apart(op: OpOverload, *args: Any, **kwargs: Any) -> Any:
    """Call a composite op's own implementation, so that it calls the ops inside.

    ``op.decompose`` would prefer PyTorch's Python implementations, some of which draw other random numbers. They are
    needed where sizes are symbolic: ``upsample_*`` refuses such in C++ (torch 2.13.0).
    """
    symbolic = any(isinstance(leaf, py_sym_types) for leaf in leaves_of((args, kwargs)))
    if symbolic and has_python_implementation(op):
        return op.decompose(*args, **kwargs)
    return call_implementation(op, *args, **kwargs)


def _may_contain_ops(node: fx.Node) -> bool:
    """Tell whether a call can reach other ops: a composite op, or a Python function that is no ATen op."""
    name = op_name_of(node)
    if is_reflected(node.target, node.args):
        return name is None
    if name in LAYOUT_OPS or getattr(node.target, "__module__", None) in ("_operator", "math", "builtins"):
        return False
    if name is not None and isinstance(getattr(torch.ops.aten, name, None), OpOverloadPacket):
        return any(op in _composite_ops() for op in overloads_of(name))
    if isinstance(node.target, str):
        return inspect.isfunction(getattr(torch.Tensor, node.target, None))
    return inspect.isfunction(node.target)


def _has_eligible_input(node: fx.Node, context: LoweringContext) -> bool:
    """Tell whether autocast could cast anything among a call's inputs."""
    values = tensors_in([value_of(n) for n in node.all_input_nodes])
    return any(context.on_device(v) and is_eligible(v) for v in values)


def _remember_nothing_inside(key: Hashable) -> None:
    """Add a call, keeping the memory of a long process bounded."""
    if len(_NOTHING_INSIDE) > 10_000:
        _NOTHING_INSIDE.clear()
    _NOTHING_INSIDE.add(key)


def _differ(nodes: list[fx.Node], values: list[Any]) -> bool:
    """Tell whether any node's value has another dtype than the one given for it."""
    return any(dtypes_in(value_of(node)) != dtypes_in(value) for node, value in zip(nodes, values, strict=True))
