"""PyTorch's own autocast test lists against the policy ``"torch"``, eager and lowered."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import fx
from torch.testing._internal.autocast_test_lists import AutocastTestLists
from torch.utils import _pytree as pytree

import xpu_amp_dynamo
from tests.support.samples import same
from xpu_amp_dynamo import Policy
from xpu_amp_dynamo.errors import BannedOpError

LINALG = torch._C._linalg  # type: ignore[attr-defined]
LISTS = AutocastTestLists(torch.device("cpu"))
LOWER = torch.float16
# cuDNN's convolutions exist on CUDA only and are not in the table for XPU. `__div__` is Python 2's. The
# entry of einsum has an equation that does not fit its operands; PyTorch's own tests skip it.
NOT_HERE = {"cudnn_convolution", "cudnn_convolution_transpose", "__div__", "einsum"}
# Returns a Python bool, so it reads data and ends a graph.
NOT_CAPTURABLE = (torch.equal,)


def cases() -> Iterator[Any]:
    """Yield the lists' cases as (name, function, args, kwargs, dtype in which the op must run or None)."""
    wanted = {"fp16": LOWER, "fp32": torch.float32, "promote": None}
    for list_name, entries in vars(LISTS).items():
        dtype = wanted.get(list_name.rpartition("_")[2], "skip")
        if not isinstance(entries, list) or dtype == "skip":
            continue
        for index, entry in enumerate(entries):
            if entry[0] not in NOT_HERE:
                function, args = _function(list_name, entry)
                kwargs = next((e for e in entry[2:] if isinstance(e, dict)), {})
                output = next((e for e in entry[2:] if isinstance(e, torch.dtype)), None)
                yield pytest.param(function, args, kwargs, dtype, output, id=f"{list_name}-{entry[0]}-{index}")


def _function(list_name: str, entry: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return what a case calls and with which arguments."""
    name, args = entry[0], entry[1] if isinstance(entry[1], tuple) else (entry[1],)
    if list_name.startswith("methods"):
        return getattr(operator, name, None) or getattr(torch.Tensor, name), args
    namespace = {"torch": torch, "nn": torch._C._nn, "linalg": LINALG}[list_name.partition("_")[0]]
    return getattr(namespace, name, None) or getattr(torch.nn.functional, name), args


def _reference(function: Callable[..., Any], args: Any, kwargs: Any, dtype: torch.dtype | None) -> Any:
    """Call the op on inputs cast by hand."""
    floating = [t.dtype for t in pytree.tree_leaves(args) if isinstance(t, torch.Tensor) and t.is_floating_point()]
    wanted = dtype or (torch.float32 if torch.float32 in floating else LOWER)
    cast = pytree.tree_map_only(torch.Tensor, lambda t: t.to(wanted) if t.is_floating_point() else t, args)
    return function(*cast, **kwargs)


@pytest.mark.parametrize(("function", "args", "kwargs", "dtype", "output"), list(cases()))
def test_policy_torch_runs_the_lists(function, args, kwargs, dtype, output):
    policy = Policy.named("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of the listed ops
        xpu_amp_dynamo.install(policy, "cpu")
        with torch.autocast("cpu", LOWER):
            eager = function(*args, **kwargs)
            assert torch.is_autocast_enabled("cpu")
        reference = _reference(function, args, kwargs, dtype)
        lowered = eager if function in NOT_CAPTURABLE else _lowered(function, args, kwargs, policy)
    assert same(eager, reference)
    assert same(lowered, eager)
    if output is not None and isinstance(eager, torch.Tensor):
        assert eager.dtype is output


def _lowered(function: Callable[..., Any], args: Any, kwargs: Any, policy: Policy) -> Any:
    """Run the lowered graph of one call."""
    graph = fx.Graph()
    tensors: list[torch.Tensor] = []

    def placeholder(tensor: torch.Tensor) -> fx.Node:
        tensors.append(tensor)
        return graph.placeholder(f"input_{len(tensors)}")

    graph.output(graph.call_function(function, *pytree.tree_map_only(torch.Tensor, placeholder, (args, kwargs))))
    gm = fx.GraphModule({}, graph)
    xpu_amp_dynamo.lower(gm, tensors, policy=policy, dtype=LOWER, preserve_output_dtype=False)
    return fx.Interpreter(gm).run(*tensors)


@pytest.mark.parametrize(("name", "args", "namespace"), LISTS.banned)
def test_banned_ops_raise_eager_and_lowered(name, args, namespace):
    xpu_amp_dynamo.install(Policy.named("torch"), "cpu")
    function = getattr(namespace, name)
    with torch.autocast("cpu", LOWER), pytest.raises(BannedOpError, match="binary_cross_entropy_with_logits"):
        function(*args)
    with pytest.raises(BannedOpError, match="binary_cross_entropy_with_logits"):
        _lowered(function, args, {}, Policy.named("torch"))
