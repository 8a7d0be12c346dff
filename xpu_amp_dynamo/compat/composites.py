"""Ops that PyTorch composes of others, and the implementations that call these. Checked on torch 2.13.0."""

from __future__ import annotations

from typing import Any

from xpu_amp_dynamo.compat.dispatcher import dispatch_key, has_kernel
from xpu_amp_dynamo.compat.op_types import OpOverload

_KEY = "CompositeImplicitAutograd"


def is_composite(op: OpOverload) -> bool:
    """Tell whether PyTorch's own implementation of an op calls other ops through the dispatcher, in autograd too."""
    return has_kernel(op, _KEY)


def has_python_implementation(op: OpOverload) -> bool:
    """Tell whether PyTorch has an implementation of a composite op in Python besides that in C++."""
    return dispatch_key(_KEY) in op.py_kernels


def call_implementation(op: OpOverload, /, *args: Any, **kwargs: Any) -> Any:
    """Call the implementation of a composite op in C++ past the dispatcher, which then sees the ops inside."""
    return op._op_dk(dispatch_key(_KEY), *args, **kwargs)
