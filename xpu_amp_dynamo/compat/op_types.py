"""The types of ops, and what ops say of themselves: their schemas and their names. Checked on torch 2.13.0."""

from __future__ import annotations

import torch
from torch._higher_order_ops.triton_kernel_wrap import TritonKernelWrapperMutation
from torch._library.custom_ops import CustomOpDef
from torch._ops import HigherOrderOperator, OperatorBase, OpOverload, OpOverloadPacket

# An overload is one signature of an op, ``torch.ops.aten.add.Tensor``; a packet holds all of them,
# ``torch.ops.aten.add``. A higher-order op calls graphs. A definition is what ``torch.library.custom_op`` returns.
__all__ = [
    "CustomOpDef",
    "HigherOrderOperator",
    "OpOverload",
    "OpOverloadPacket",
    "OperatorBase",
    "calls_triton_kernel",
    "custom_op_name",
    "overload_name",
    "overload_named",
    "qualified_name",
    "schema_of",
]


def schema_of(op: OpOverload) -> torch.FunctionSchema:
    """Return an overload's arguments and results, with what it writes to and what it returns views of."""
    return op._schema


def qualified_name(op: OpOverload | OpOverloadPacket) -> str:
    """Return the name of an op with its namespace and without an overload, as in ``"aten::add"``."""
    return op._schema.name if isinstance(op, OpOverload) else op._qualified_op_name


def overload_name(op: OpOverload) -> str:
    """Return what an overload is called among those of its op, as in ``"Tensor"`` or ``"default"``."""
    return op._overloadname


def overload_named(name: str) -> OpOverload:
    """Return a registered overload by its full name, as in ``"aten::add.Tensor"`` and ``"aten::relu"``."""
    namespace, _, rest = name.partition("::")
    op, _, overload = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), op), overload or "default")


def custom_op_name(op: CustomOpDef) -> str:
    """Return the name of an op that Python code defined, with its namespace."""
    return op._qualname


def calls_triton_kernel(target: object) -> bool:
    """Tell whether what a node of a captured graph calls is a Triton kernel of the program."""
    return isinstance(target, TritonKernelWrapperMutation)
