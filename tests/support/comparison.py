"""Runs a program eagerly and compiled, forward and backward, and compares all that comes out."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils import _pytree as pytree

import xpu_amp_dynamo

# What runs the lowered graph; the first two must give what eager autocast gives, bit for bit.
INNER_BACKENDS = ("eager", "aot_eager", "inductor")
# Relative error of the norm where Inductor rounds less often than eager code: some roundings to bfloat16, 0.002 each.
INDUCTOR_BOUND = 0.01


_numbers = itertools.count()


class NoRegion(contextlib.nullcontext):
    """Stands for a call with no region around it."""


def outcome_of(call: Callable[..., Any], inputs: Sequence[Any], weights: Iterable[torch.Tensor] = ()) -> list[Any]:
    """Run a program on copies of inputs; return its outputs, and the gradients where there are any.

    Args:
        call: the program.
        inputs: tensors and other values; tensors keep their ``requires_grad``.
        weights: parameters of the program; their gradients are reset first.
    """
    copies = [t.detach().clone().requires_grad_(t.requires_grad) if isinstance(t, torch.Tensor) else t for t in inputs]
    weights = list(weights)
    for weight in weights:
        weight.grad = None
    leaves = pytree.tree_leaves(call(*copies))
    differentiable = [t for t in leaves if isinstance(t, torch.Tensor) and t.requires_grad]
    if differentiable:
        sum((t.float().square().sum() for t in differentiable), torch.zeros(())).backward()
    written = [t.detach() for t in copies if isinstance(t, torch.Tensor)]
    return [*leaves, *written, *(t.grad for t in [*copies, *weights] if isinstance(t, torch.Tensor))]


def register_backend(backend: Callable[..., Any]) -> str:
    """Register a Dynamo backend under a name of its own, which can stand for ``inner_backend``; return the name."""
    name = f"backend_of_tests_{next(_numbers)}"
    torch._dynamo.register_backend(backend, name=name)
    return name


def counting_backend(inner: str) -> tuple[CompileCounterWithBackend, str]:
    """Return a counter of the graphs that a backend compiles, and the name under which it is registered."""
    counter = CompileCounterWithBackend(inner)
    return counter, register_backend(counter)


def compile_program(program: Callable[..., Any], inner_backend: str = "eager", **options: Any) -> Callable[..., Any]:
    """Compile a program for our backend, by default without a graph break."""
    settings = {key: options.pop(key) for key in ("fullgraph", "dynamic") if key in options}
    options = {"inner_backend": inner_backend, **options}
    return torch.compile(program, backend="xpu_amp", options=options, **{"fullgraph": True, **settings})


def assert_compiled_equals_eager(
    program: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    region: Callable[[], contextlib.AbstractContextManager] = NoRegion,
    weights: Iterable[torch.Tensor] = (),
    inner_backends: Sequence[str] = INNER_BACKENDS,
    **options: Any,
) -> list[Any]:
    """Check a program against itself compiled; return what the eager run gave.

    Args:
        program: what to run.
        inputs: its inputs.
        region: makes the region around each call.
        weights: its parameters.
        inner_backends: what to run the lowered graph by.
        options: those of the backend, and ``fullgraph`` and ``dynamic``. Without a region around the call the policy
            must be off for a comparison: ``enabled=False``.
    """
    weights = list(weights)
    xpu_amp_dynamo.install(device_type="cpu")

    def within(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            with region():
                return call(*arguments)

        return run

    expected = outcome_of(within(program), inputs, weights)
    for inner_backend in inner_backends:
        torch._dynamo.reset()
        actual = outcome_of(within(compile_program(program, inner_backend, **options)), inputs, weights)
        assert_same(actual, expected, exact=inner_backend != "inductor")
    return expected


def assert_same(
    actual: Sequence[Any], expected: Sequence[Any], exact: bool = True, bound: float = INDUCTOR_BOUND
) -> None:
    """Check that two outcomes have the same dtypes and, if exact, the same bits, else nearly the same values."""
    assert len(actual) == len(expected) > 0
    for one, other in zip(actual, expected, strict=True):
        if not isinstance(other, torch.Tensor):
            assert one == other
        elif exact or not other.is_floating_point():
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        else:
            assert one.dtype is other.dtype
            assert relative_error(one, other) <= bound


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference of two tensors over the norm of the second."""
    if not expected.numel():
        return 0.0
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-12))
