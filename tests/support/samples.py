"""The samples of PyTorch's OpInfo database, as calls that can be repeated on other dtypes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
import zlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import OpInfo
from torch.utils import _pytree as pytree

OPS: dict[str, OpInfo] = {op.full_name: op for op in op_db if torch.float32 in op.supported_dtypes("cpu")}
MANY = 60
ONE_IN = 3


def a_few_slowly(names: Iterable[str]) -> list[Any]:
    """Return parameters for ops: one in three is marked slow, and the others are left to the larger sweeps."""
    marks = {True: pytest.mark.slow, False: pytest.mark.sweep}
    return [pytest.param(name, marks=marks[zlib.crc32(name.encode()) % ONE_IN == 0]) for name in sorted(names)]


@dataclass(frozen=True)
class Call:
    """One call of an op: what to call, and with which arguments."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        """Call the op on copies of its arguments, with the random state reset."""
        reset_random_state()
        args, kwargs = pytree.tree_map_only(torch.Tensor, _copy, (self.args, self.kwargs))
        return self.function(*args, **kwargs)

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Call:
        """Return the call with every tensor replaced by what ``change`` makes of it."""
        args, kwargs = pytree.tree_map_only(torch.Tensor, change, (self.args, self.kwargs))
        return dataclasses.replace(self, args=args, kwargs=kwargs)

    def tensors(self) -> list[torch.Tensor]:
        """List the tensors among the arguments."""
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, torch.Tensor)]


def calls_of(
    op: OpInfo, dtype: torch.dtype = torch.float32, most: int | None = None, device: str = "cpu"
) -> list[Call]:
    """List the samples of an op on a device, the first ``most`` of them.

    Without ``most``, they are all, or some from everywhere among them where there are more than that: a few ops have
    over a thousand, all combinations of a few settings.
    """
    torch.manual_seed(0)
    samples = op.sample_inputs_func(op, device, dtype, False)
    chosen = choose(samples, most, MANY)
    return [Call(op.op, (sample.input, *sample.args), dict(sample.kwargs)) for sample in chosen]


def choose(samples: Iterable[Any], most: int | None, many: int) -> list[Any]:
    """Return the first ``most`` samples, or ``many`` from everywhere among them where there are more than that.

    A generator is closed at once: those of OpInfo switch the grad mode, and left to the garbage collector they would
    do so at any moment.
    """
    closing: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if isinstance(samples, Generator):
        closing = contextlib.closing(samples)
    with closing:
        chosen = list(itertools.islice(samples, most))
    return random.Random(0).sample(chosen, many) if len(chosen) > many else chosen


def first_lower(call: Call, dtype: torch.dtype) -> Call:
    """Return the call with its first float32 tensor in a lower dtype: what a region leaves downstream."""
    seen = False

    def change(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        if seen or tensor.dtype is not torch.float32:
            return tensor
        seen = True
        return tensor.to(dtype)

    return call.mapped(change)


def outcome_of(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the exception type if it raises a RuntimeError or the like."""
    try:
        return call()
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        return type(error)


def same(left: Any, right: Any) -> bool:
    """Tell whether two outcomes are equal bit for bit, dtypes included."""
    left_leaves, right_leaves = pytree.tree_leaves(left), pytree.tree_leaves(right)
    return len(left_leaves) == len(right_leaves) and all(map(_same_leaf, left_leaves, right_leaves))


def _same_leaf(left: Any, right: Any) -> bool:
    if not isinstance(left, torch.Tensor) or not isinstance(right, torch.Tensor):
        return type(left) is type(right) and (left == right or left != left)
    if left.dtype is not right.dtype or left.shape != right.shape or left.layout is not right.layout:
        return False
    if left.layout is not torch.strided:
        left, right = left.to_dense(), right.to_dense()
    return bool(torch.isclose(left, right, rtol=0, atol=0, equal_nan=True).all())


def reset_random_state() -> None:
    """Set the seed that OpInfo's own wrappers set; a trace of such a wrapper cannot hold it."""
    torch.manual_seed(42)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)
