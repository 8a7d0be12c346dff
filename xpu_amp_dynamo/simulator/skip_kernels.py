"""Runs compiled code without its kernels: allocations happen, launches and extern ops do not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from xpu_amp_dynamo.runtime.kept_weight import Layout
from xpu_amp_dynamo.runtime.weight_store import WEIGHTS, cast_weight

# Ops of the wrapper code that make or view memory, and so must happen.
MEMORY_OPS = frozenset(("empty_strided", "as_strided", "empty", "view", "_reshape_alias", "alias", "detach", "slice"))


def skip_kernels(stack: contextlib.ExitStack) -> None:
    """Leave kernels out of compiled code, until ``stack`` closes."""
    to_module = GraphLowering.compile_to_module

    def compile_to_module(graph: GraphLowering) -> Any:
        module: Any = to_module(graph)
        module.call = _without_kernels(module.call)
        return module

    stack.enter_context(mock.patch.object(GraphLowering, "compile_to_module", compile_to_module))
    stack.enter_context(mock.patch.object(CachingAutotuner, "run", return_value=None))
    stack.enter_context(WEIGHTS.casting_by(_without_casting))


def _without_casting(weight: torch.Tensor, dtype: torch.dtype, layout: Layout) -> torch.Tensor:
    """Cast a weight, but only take memory for it if it is one of the simulated XPU."""
    if not weight.is_xpu:
        return cast_weight(weight, dtype, layout)
    assert isinstance(layout, torch.memory_format)
    return torch.empty_like(weight, dtype=dtype, memory_format=layout, requires_grad=False)


def _without_kernels(call: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """Return the call of a compiled graph with every op left out and its outputs set to zero."""

    def call_without_kernels(inputs: list[Any]) -> Any:
        given = {_memory(value) for value in inputs if isinstance(value, torch.Tensor)}
        with _ShapesOnly():
            outputs = call(inputs)
        for value in outputs:
            if isinstance(value, torch.Tensor) and _memory(value) not in given:
                value.zero_()
        return outputs

    return call_without_kernels


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _ShapesOnly(TorchDispatchMode):
    """Gives ops results of the right shapes and dtypes without computing them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name.removeprefix("aten::") in MEMORY_OPS or not _touches_xpu((args, kwargs)):
            return func(*args, **kwargs)
        if "out" in kwargs:
            return kwargs["out"]
        with FakeTensorMode(allow_non_fake_inputs=True) as fake_mode:
            fake = pytree.tree_map_only(torch.Tensor, fake_mode.from_tensor, (args, kwargs))
            result = func(*fake[0], **fake[1])
        return pytree.tree_map_only(torch.Tensor, _empty_like, result)


def _touches_xpu(values: Any) -> bool:
    leaves = pytree.tree_leaves(values)
    return any(isinstance(leaf, torch.Tensor) and leaf.is_xpu for leaf in leaves)


def _empty_like(fake: torch.Tensor) -> torch.Tensor:
    """Allocate a tensor of a fake one's shape; memory that is never written is never taken."""
    return torch.empty_strided(fake.size(), fake.stride(), dtype=fake.dtype, device=fake.device)
