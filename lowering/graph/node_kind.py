"""What a node of a captured graph is: a call of an op by name, a higher-order op, with which arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.calls_in_graphs import SAVED_TENSORS_HOOKS_CALLS, SET_GRAD_ENABLED
from xpu_amp_dynamo.compat.compiled_modules import module_id
from xpu_amp_dynamo.compat.op_types import (
    HigherOrderOperator,
    OpOverload,
    OpOverloadPacket,
    qualified_name,
    schema_of,
)
from xpu_amp_dynamo.policy.op_names import (
    ALIASES,
    callable_name,
    is_in_place_name,
    is_reflected,
    overloads_of,
    reflected_name,
    target_name,
)

CALLS = ("call_function", "call_method")
GRAD_MODE_CALLS = (SET_GRAD_ENABLED, torch.set_grad_enabled)
# Calls that read no element of a tensor.
SILENT_CALLS = (*SAVED_TENSORS_HOOKS_CALLS, torch.ops.aten._assert_tensor_metadata.default)


def op_name_of(node: fx.Node) -> str | None:
    """Return the op name that a call goes by; None for mutations, ``out=`` calls and whatever is no call."""
    if node.op not in CALLS or node.kwargs.get("out") is not None:
        return None
    if node.op == "call_method":
        name = str(node.target)
        return None if is_in_place_name(name) else ALIASES.get(name, name)
    assert callable(node.target)
    return reflected_name(node.target) if is_reflected(node.target, node.args) else callable_name(node.target)


def base_op_name(node: fx.Node) -> str:
    """Return the name of the op of which a call may be the in-place or ``out=`` form; empty if it has no name."""
    if isinstance(node.target, OpOverload):
        name = qualified_name(node.target).removeprefix("aten::")
    else:
        name = target_name(node.target)
    name = name if name.startswith("__") else name.removesuffix("_")
    return ALIASES.get(name, name)


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """Return the arguments that a call was given, by name: those of a Python function's signature or of the schema."""
    return dict(zip(_argument_names(node), node.args, strict=False)) | node.kwargs


def arguments_in_order(node: fx.Node) -> list[Any]:
    """List the arguments that a call was given as the op names them, None in place of those that it was not."""
    later = _argument_names(node)[len(node.args) :]
    others = [value for name, value in node.kwargs.items() if name not in later]
    return [*node.args, *map(node.kwargs.get, later), *others]


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


def attribute_of(owner: object, path: str) -> object:
    """Return an attribute by dotted path, None if there is none."""
    value: object = owner
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def _argument_names(node: fx.Node) -> list[str]:
    """List the names of a call's arguments, in order."""
    target: Any = node.target
    if inspect.isfunction(target):
        return list(inspect.signature(target).parameters)
    if isinstance(target, OpOverload):
        overloads: tuple[OpOverload, ...] = (target,)
    elif isinstance(target, OpOverloadPacket):
        overloads = tuple(getattr(target, name) for name in target.overloads())
    else:
        overloads = overloads_of(str(op_name_of(node)))
    return [argument.name for argument in schema_of(overloads[0]).arguments] if overloads else []


def source_place(node: fx.Node) -> str:
    """Return where in the user's code a node comes from."""
    trace = node.meta.get("stack_trace")
    return f"\n{trace.rstrip()}" if trace else ""


def source_line(node: fx.Node) -> str:
    """Return the line of the user's code that a node comes from, as ``"file:line: code"``; empty if none is known."""
    frames = (node.meta.get("stack_trace") or "").rsplit('File "', 1)
    if len(frames) < 2:
        return ""
    location, _, code = frames[1].partition("\n")
    file, _, line = location.partition('", line ')
    statement = code.strip().partition("\n")[0]
    return f"{file.rsplit('/', 1)[-1]}:{line.partition(',')[0]}: {statement}"


def module_of(node: fx.Node, names: Mapping[int, str]) -> str:
    """Return the qualified name of the module whose code a node is; empty outside of modules.

    Args:
        node: a node of a captured graph.
        names: the modules of the model by their ``id``; others are named as capture reached them.
    """
    entries = list(node.meta.get("nn_module_stack", {}).items())
    if not entries:
        return ""
    key, (path, _) = entries[-1]
    return names.get(module_id(key) or 0, path)
