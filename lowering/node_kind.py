"""What a node of a captured graph is: a call of an op by name, a mutation, a higher-order op."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx
from torch._higher_order_ops.triton_kernel_wrap import TritonKernelWrapperMutation as TritonKernelWrapper
from torch._ops import HigherOrderOperator, OpOverload

from xpu_amp_dynamo.lowering.values import storage_of, tensor_inputs, tensors_in, value_of
from xpu_amp_dynamo.op_names import ALIASES, IN_PLACE_OPERATORS, callable_name, is_in_place_name

CALLS = ("call_function", "call_method")


def op_name_of(node: fx.Node) -> str | None:
    """Return the op name that a call goes by; None for mutations, ``out=`` calls and whatever is no call."""
    if node.op not in CALLS or "out" in node.kwargs:
        return None
    if node.op == "call_method":
        name = str(node.target)
        return None if is_in_place_name(name) else ALIASES.get(name, name)
    assert callable(node.target)
    return callable_name(node.target)


def base_op_name(node: fx.Node) -> str:
    """Return the name of the op of which a call may be the in-place or ``out=`` form; empty if it has no name."""
    if isinstance(node.target, OpOverload):
        name = node.target._schema.name.removeprefix("aten::")
    else:
        name = _target_name(node)
    name = name if name.startswith("__") else name.removesuffix("_")
    return ALIASES.get(name, name)


def is_higher_order(node: fx.Node) -> bool:
    """Tell whether a node calls subgraphs."""
    return isinstance(node.target, HigherOrderOperator) or bool(subgraphs_of(node))


def subgraphs_of(node: fx.Node) -> list[tuple[fx.Node, fx.GraphModule]]:
    """List the graph modules among a call's arguments, each with the node that fetches it."""
    owner = node.graph.owning_module
    found = []
    for argument in node.all_input_nodes:
        if argument.op == "get_attr" and owner is not None:
            module = attribute_of(owner, str(argument.target))
            if isinstance(module, fx.GraphModule):
                found.append((argument, module))
    return found


def mutated_inputs(node: fx.Node) -> list[fx.Node]:
    """List the input nodes whose tensors a call writes to."""
    return [a for a in _mutated_arguments(node) if isinstance(a, fx.Node)]


def written_storages(nodes: Iterable[fx.Node]) -> set[int | None]:
    """Return the storages of what any of the calls writes to."""
    return {storage_of(t) for node in nodes for n in mutated_inputs(node) for t in tensors_in(value_of(n))} - {None}


def _target_name(node: fx.Node) -> str:
    """Return the name of the method or function that a node calls."""
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _mutated_arguments(node: fx.Node) -> list[Any]:
    """List the arguments that a call writes to."""
    if node.op not in CALLS:
        return []
    outs = node.kwargs.get("out")
    written = list(outs) if isinstance(outs, (tuple, list)) else [outs]
    if isinstance(node.target, OpOverload):
        return written + _mutated_by_schema(node, node.target)
    if is_higher_order(node):
        return _mutated_by_subgraphs(node)
    name = _target_name(node)
    if name in IN_PLACE_OPERATORS or is_in_place_name(name) or _is_called_in_place(node):
        written.append(node.args[0])
    return written


def _mutated_by_schema(node: fx.Node, op: OpOverload) -> list[Any]:
    """List the arguments that an overload's schema marks as written."""
    written: list[Any] = []
    for position, argument in enumerate(op._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[position] if position < len(node.args) else node.kwargs.get(argument.name)
            written.extend(value if isinstance(value, (tuple, list)) else [value])
    return written


def _mutated_by_subgraphs(node: fx.Node) -> list[Any]:
    """List all tensors that a higher-order op gets, if it may write to any of them."""
    writes = isinstance(node.target, TritonKernelWrapper) or any(_writes_to_inputs(gm) for _, gm in subgraphs_of(node))
    return tensor_inputs(node) if writes else []


def _writes_to_inputs(gm: fx.GraphModule) -> bool:
    """Tell whether a graph writes to memory of its inputs."""
    own = {storage_of(t) for node in gm.graph.find_nodes(op="placeholder") for t in tensors_in(value_of(node))}
    return bool(own & written_storages(gm.graph.nodes))


def writes_unseen(node: fx.Node) -> bool:
    """Tell whether a call writes to its inputs where no cast can follow: in a kernel, a custom op or a subgraph."""
    own = isinstance(node.target, OpOverload) and node.target.namespace != "aten"
    return (own or is_higher_order(node)) and bool(mutated_inputs(node))


def _is_called_in_place(node: fx.Node) -> bool:
    """Tell whether a functional such as ``relu`` or ``dropout`` is called with ``inplace=True``."""
    if not inspect.isfunction(node.target) or "inplace" not in inspect.signature(node.target).parameters:
        return False
    bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)
    return bool(bound.arguments.get("inplace", False))


def returns_first_input(node: fx.Node) -> bool:
    """Tell whether a mutation returns the very tensor it wrote to."""
    return bool(node.args) and node.args[0] in mutated_inputs(node) and isinstance(value_of(node), torch.Tensor)


def attribute_of(owner: torch.nn.Module, path: str) -> object:
    """Return a module's attribute by dotted path, None if it has none."""
    value: object = owner
    for name in path.split("."):
        value = getattr(value, name, None)
    return value
