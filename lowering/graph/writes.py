"""What a call writes to: in-place and ``out=`` arguments, and what schemas and subgraphs tell of others."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.op_types import (
    OpOverload,
    OpOverloadPacket,
    calls_triton_kernel,
    qualified_name,
    schema_of,
)
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS, arguments_of, is_higher_order, op_name_of, subgraphs_of
from xpu_amp_dynamo.lowering.graph.values import storages_in, tensor_inputs, value_of
from xpu_amp_dynamo.policy.op_names import is_in_place_name, is_in_place_operator, target_name
from xpu_amp_dynamo.policy.tables.unmarked import RENORMALISED, WRITTEN_ARGUMENTS, WRITTEN_IF


def mutated_inputs(node: fx.Node) -> list[fx.Node]:
    """List the input nodes whose tensors a call writes to."""
    found: list[fx.Node] = []
    fx.map_arg(_mutated_arguments(node), found.append)
    return found


def written_storages(nodes: Iterable[fx.Node]) -> set[int]:
    """Return the storages of what any of the calls writes to."""
    return storages_in([value_of(n) for node in nodes for n in mutated_inputs(node)])


def writes_unseen(node: fx.Node) -> bool:
    """Tell whether a call writes to its inputs where no cast can follow: in a kernel, a custom op or a subgraph."""
    target = node.target
    own = isinstance(target, (OpOverload, OpOverloadPacket)) and not qualified_name(target).startswith("aten::")
    return (own or is_higher_order(node)) and bool(mutated_inputs(node))


def writes_only_statistics(node: fx.Node) -> bool:
    """Tell whether a call is of an out-of-place op that keeps statistics in some of its arguments."""
    return op_name_of(node) in WRITTEN_ARGUMENTS and not is_called_in_place(node)


def returns_first_input(node: fx.Node) -> bool:
    """Tell whether a mutation returns the very tensor it wrote to."""
    return bool(node.args) and node.args[0] in mutated_inputs(node) and isinstance(value_of(node), torch.Tensor)


def is_called_in_place(node: fx.Node) -> bool:
    """Tell whether a functional such as ``relu`` or ``dropout`` is called with ``inplace=True``."""
    if not inspect.isfunction(node.target) or "inplace" not in inspect.signature(node.target).parameters:
        return False
    return bool(arguments_of(node).get("inplace", False))


def _mutated_arguments(node: fx.Node) -> Any:
    """Return the arguments that a call writes to, nested as they are."""
    if node.op not in CALLS:
        return []
    written: list[Any] = [node.kwargs.get("out")]
    if isinstance(node.target, OpOverload):
        return written + _mutated_by_schema(node, node.target)
    if isinstance(node.target, OpOverloadPacket):
        overloads = [getattr(node.target, name) for name in node.target.overloads()]
        return written + [argument for op in overloads for argument in _mutated_by_schema(node, op)]
    if is_higher_order(node):
        return _mutated_by_subgraphs(node)
    name = target_name(node.target)
    if is_in_place_operator(node.target) or is_in_place_name(name) or is_called_in_place(node):
        written.append(node.args[0] if node.args else next(iter(node.kwargs.values()), None))
    return written + _hidden_writes(node)


def _mutated_by_schema(node: fx.Node, op: OpOverload) -> list[Any]:
    """List the arguments that an overload's schema marks as written, or is known to forget."""
    written: list[Any] = []
    for position, argument in enumerate(schema_of(op).arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            positional = position < len(node.args) and not argument.kwarg_only
            written.append(node.args[position] if positional else node.kwargs.get(argument.name))
    return written + _hidden_writes(node)


def _hidden_writes(node: fx.Node) -> list[Any]:
    """List the arguments that an op writes to though its schema does not say so."""
    name = str(op_name_of(node))
    if name in RENORMALISED:
        weight, condition = RENORMALISED[name]
        given = arguments_of(node)
        return [given.get(weight)] if given.get(condition) is not None else []
    if name not in WRITTEN_ARGUMENTS:
        return []
    given = arguments_of(node)
    active = given.get(WRITTEN_IF.get(name, "training"), True)
    return [given.get(argument) for argument in WRITTEN_ARGUMENTS[name]] if active is not False else []


def _mutated_by_subgraphs(node: fx.Node) -> list[Any]:
    """List all tensors that a higher-order op gets, if it may write to any of them."""
    writes = calls_triton_kernel(node.target) or any(_writes_to_inputs(gm) for _, gm in subgraphs_of(node))
    return tensor_inputs(node) if writes else []


def _writes_to_inputs(gm: fx.GraphModule) -> bool:
    """Tell whether a graph writes to memory of its inputs."""
    own = storages_in(list(map(value_of, gm.graph.find_nodes(op="placeholder"))))
    return bool(own & written_storages(gm.graph.nodes))
