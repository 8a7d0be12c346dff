"""Traces one call down to the ops that the policy lists inside it.

An unlisted op may contain listed ones: ``einsum`` is a ``bmm`` between permutes, an LSTM cell two ``linear``.
In eager code the dispatcher reaches them; in the graph nothing would. So the one node is traced on its fake
inputs, before autograd and autocast, with each composite op taken apart and each listed op given its casts:

before:  einsum("ij,jk->ik", a, b)                                         # a, b: float32
after:   ... view(permute(a)) -> to(bfloat16) -> bmm(., to(bfloat16)) -> view ...

No table of internals is needed. Ops that call listed ops in compiled kernels are out of reach: see
``tests/conformance/known_exceptions.py``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload, OpOverloadPacket
from torch.fx.experimental.proxy_tensor import make_fx, py_sym_types
from torch.utils import _pytree as pytree

from xpu_amp_dynamo.cast_rule import ELIGIBLE_DTYPES, cast_rule
from xpu_amp_dynamo.lowering.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.context import LoweringContext
from xpu_amp_dynamo.lowering.fake_run import call_target
from xpu_amp_dynamo.lowering.functorch_levels import outside_levels, without_wrappers
from xpu_amp_dynamo.lowering.layout_ops import LAYOUT_OPS
from xpu_amp_dynamo.lowering.node_kind import op_name_of
from xpu_amp_dynamo.lowering.values import input_values, runnable_value_of, tensors_in
from xpu_amp_dynamo.op_names import overloads_of
from xpu_amp_dynamo.policy import Policy

Decomposition = Callable[..., Any]


def trace_composite(node: fx.Node, context: LoweringContext, state: AutocastState) -> fx.GraphModule | None:
    """Return the graph of the ops inside a call, cast as the policy says; None if it casts nothing inside.

    Args:
        node: a call that the policy does not list.
        context: the lowering in hand.
        state: the autocast state at the node.

    Returns:
        A graph whose placeholders are ``node.all_input_nodes`` in order, or None. Its casts are
        ``aten._to_copy`` nodes, see :func:`is_traced_cast`.
    """
    if not _may_contain_ops(node) or not _has_eligible_input(node, context):
        return None
    key = _signature(node, context.policy, state)
    if key in _nothing_inside:
        return None
    inserted: list[torch.dtype] = []
    graph = _trace(node, _decompositions(context, state, inserted))
    if not inserted:
        _remember_nothing_inside(key)
        return None
    return graph


def is_traced_cast(node: fx.Node) -> bool:
    """Tell whether a node of a traced graph only casts its input."""
    return node.target is torch.ops.aten._to_copy.default and set(node.kwargs) == {"dtype"}


def _trace(node: fx.Node, decompositions: dict[OpOverload, Decomposition]) -> fx.GraphModule:
    """Trace a call on the values of its inputs."""
    inputs = node.all_input_nodes

    def call(*values: Any) -> Any:
        given = dict(zip(inputs, values, strict=True))
        return call_target(node, *fx.map_arg((node.args, node.kwargs), given.__getitem__))

    traced = make_fx(call, decomposition_table=decompositions, pre_dispatch=True)
    with outside_levels():
        return traced(*[without_wrappers(runnable_value_of(n)) for n in inputs])


def _decompositions(
    context: LoweringContext, state: AutocastState, inserted: list[torch.dtype]
) -> dict[OpOverload, Decomposition]:
    """Map composite ops to their contents and listed ops to themselves with casts, noted in ``inserted``."""
    table = dict(_composite_ops())
    for name in context.policy.categories:
        for op in overloads_of(name):
            table[op] = functools.partial(_cast_and_call, op, name, context, state, inserted)
    return table


def _cast_and_call(
    op: OpOverload,
    name: str,
    context: LoweringContext,
    state: AutocastState,
    inserted: list[torch.dtype],
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Cast the inputs of a listed op and call it; NotImplemented, for the op as it is, if none needs a cast."""
    on_device = [t for t in tensors_in((args, kwargs)) if context.on_device(t)]
    wanted = cast_rule(name, [t.dtype for t in on_device], context.policy, state.dtype)
    if wanted is None or all(t.dtype is wanted or t.dtype not in ELIGIBLE_DTYPES for t in on_device):
        return NotImplemented
    inserted.append(wanted)

    def cast(tensor: torch.Tensor) -> torch.Tensor:
        eligible = context.on_device(tensor) and tensor.dtype in ELIGIBLE_DTYPES and tensor.dtype is not wanted
        return torch.ops.aten._to_copy.default(tensor, dtype=wanted) if eligible else tensor

    args, kwargs = pytree.tree_map_only(torch.Tensor, cast, (args, kwargs))
    return op(*args, **kwargs)


@functools.cache
def _composite_ops() -> dict[OpOverload, Decomposition]:
    """Map every ATen op that PyTorch composes of others to the function that takes it apart."""
    table: dict[OpOverload, Decomposition] = {}
    for qualified in torch._C._dispatch_get_all_op_names():
        namespace, _, name = qualified.partition("::")
        packet, _, overload = name.partition(".")
        if namespace == "aten" and torch._C._dispatch_has_kernel(qualified):
            op = getattr(getattr(torch.ops.aten, packet), overload or "default")
            if packet not in LAYOUT_OPS and _is_composite(op):
                table[op] = functools.partial(_take_apart, op)
    return table


def _take_apart(op: OpOverload, *args: Any, **kwargs: Any) -> Any:
    """Call a composite op's own implementation, so that it calls the ops inside.

    ``op.decompose`` would prefer PyTorch's Python implementations, some of which draw other random numbers. They are
    needed where sizes are symbolic: ``upsample_*`` refuses such in C++ (torch 2.13.0).
    """
    symbolic = any(isinstance(leaf, py_sym_types) for leaf in pytree.tree_leaves((args, kwargs)))
    if symbolic and torch._C.DispatchKey.CompositeImplicitAutograd in op.py_kernels:
        return op.decompose(*args, **kwargs)
    return op._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)


def _is_composite(op: OpOverload) -> bool:
    """Tell whether PyTorch's own implementation of an op calls other ops through the dispatcher, in autograd too."""
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), key)


def _may_contain_ops(node: fx.Node) -> bool:
    """Tell whether a call can reach other ops: a composite op, or a Python function that is no ATen op."""
    name = op_name_of(node)
    if name in LAYOUT_OPS or getattr(node.target, "__module__", None) in ("_operator", "math", "builtins"):
        return False
    if name is not None and isinstance(getattr(torch.ops.aten, name, None), OpOverloadPacket):
        return any(op in _composite_ops() for op in overloads_of(name))
    if isinstance(node.target, str):
        return inspect.isfunction(getattr(torch.Tensor, node.target, None))
    return inspect.isfunction(node.target)


def _has_eligible_input(node: fx.Node, context: LoweringContext) -> bool:
    """Tell whether autocast could cast anything among a call's inputs."""
    values = tensors_in(input_values(node))
    return any(context.on_device(v) and v.dtype in ELIGIBLE_DTYPES for v in values)


# Signatures of calls in which nothing was cast, so that a graph's sixtieth dropout is not traced again.
_nothing_inside: set[str] = set()


def _remember_nothing_inside(key: str) -> None:
    """Add a signature, keeping the memory of a long process bounded."""
    if len(_nothing_inside) > 10_000:
        _nothing_inside.clear()
    _nothing_inside.add(key)


def _signature(node: fx.Node, policy: Policy, state: AutocastState) -> str:
    """Describe everything on which the contents of a call can depend."""
    values = pytree.tree_map(_describe, input_values(node))
    return f"{node.target} {hash(policy)} {state.dtype} {torch.is_grad_enabled()} {values}"


def _describe(value: object) -> object:
    """Describe an argument: a tensor by its properties, a symbolic size by its expression and its hint."""
    if isinstance(value, torch.Tensor):
        strides = value.stride() if value.layout is torch.strided else ()
        sizes = tuple(map(_describe, (*value.shape, *strides)))
        return (value.dtype, value.device.type, value.layout, sizes, value.requires_grad)
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return f"{value.node.expr}={value.node.hint}"
    return value
