"""What a call gives, forward and backward, compiled or not, and how two such outcomes are compared."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

import xpu_amp_dynamo
from tests.support.samples import Call, reset_random_state

REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
Region = Callable[[], contextlib.AbstractContextManager]


@dataclass
class Outcome:
    """What one call gave: the leaves of its result, and the gradients of its inputs where it has any.

    ``refusal`` is what the backward raises, if it does. ``graphs`` counts the graphs lowered for it.
    """

    outputs: list[Any]
    gradients: list[torch.Tensor | None]
    refusal: Exception | None = None
    graphs: int = 0

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensors among outputs and gradients."""
        return [leaf for leaf in [*self.outputs, *self.gradients] if isinstance(leaf, torch.Tensor)]


def compiled(function: Callable[..., Any], inner_backend: str = "eager", **options: Any) -> Callable[..., Any]:
    """Compile a function of fixed shapes afresh, with graph breaks where Dynamo wants them."""
    torch._dynamo.reset()
    options = {"inner_backend": inner_backend, **options}
    return torch.compile(function, backend="xpu_amp", options=options, dynamic=False)


def outcome_of(call: Call, region: Region = contextlib.nullcontext) -> Outcome:
    """Run a call on copies of its arguments inside a region, and differentiate the result outside it."""
    reset_random_state()
    args, kwargs = pytree.tree_map_only(torch.Tensor, copy_of, (call.args, call.kwargs))
    inputs = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    with warnings.catch_warnings(), xpu_amp_dynamo.record_lowerings() as reports:
        warnings.simplefilter("ignore")  # the ops' own: deprecations, non-deterministic algorithms
        with region():
            outputs = pytree.tree_leaves(call.function(*args, **kwargs))
        gradients, refusal = gradients_of(outputs, [leaf for leaf in inputs if leaf.requires_grad])
    outputs = [leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in outputs]
    return Outcome(outputs, gradients, refusal, len(reports))


def outcome_or_none(call: Call, region: Region = contextlib.nullcontext) -> Outcome | None:
    """Return the outcome of a call, None where it raises."""
    try:
        return outcome_of(call, region)
    except REFUSALS:
        return None


def copy_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return a leaf with a tensor's values."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def gradients_of(
    outputs: Sequence[Any], inputs: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor | None], Exception | None]:
    """Return the gradients of inputs for fixed random gradients of the outputs, and what the backward raises."""
    roots = [leaf for leaf in outputs if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    if not roots or not inputs:
        return [], None
    generator = torch.Generator().manual_seed(7)
    weights = [_random_like(root, generator) for root in roots]
    try:
        return list(torch.autograd.grad(roots, inputs, weights, allow_unused=True)), None
    except REFUSALS as error:
        return [], error


def _random_like(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return random numbers that do not depend on the tensor's dtype but for their rounding."""
    wide = torch.complex64 if tensor.is_complex() else torch.float32
    return torch.randn(tensor.shape, dtype=wide, generator=generator).to(tensor.device, tensor.dtype)


def assert_equal(actual: Outcome, expected: Outcome, *, strides: bool = True) -> None:
    """Check that two outcomes agree bit for bit, with dtypes and, for outputs, strides."""
    assert len(actual.outputs) == len(expected.outputs)
    for index, (one, other) in enumerate(zip(actual.outputs, expected.outputs, strict=True)):
        assert_equal_leaf(one, other, f"output {index}", strides)
    for index, (one, other) in enumerate(_gradients(actual, expected)):
        assert_equal_leaf(one, other, f"gradient {index}", False)


def _gradients(actual: Outcome, expected: Outcome) -> list[tuple[torch.Tensor | None, torch.Tensor | None]]:
    """Pair the gradients of two outcomes; none where the expected backward raises."""
    if expected.refusal is not None:
        return []
    assert actual.refusal is None, f"backward raises {actual.refusal!r}"
    assert len(actual.gradients) == len(expected.gradients)
    return list(zip(actual.gradients, expected.gradients, strict=True))


def assert_equal_leaf(actual: Any, expected: Any, what: str, strides: bool) -> None:
    """Check that two leaves are equal, tensors in dtype, shape, values and strides."""
    if not isinstance(actual, torch.Tensor) or not isinstance(expected, torch.Tensor):
        assert type(actual) is type(expected), what
        assert actual == expected or actual != actual, f"{what}: {actual} for {expected}"
        return
    assert_same_kind(actual, expected, what, strides)
    actual, expected = dense(actual), dense(expected)
    difference = "" if equal(actual, expected) else f"differs by {relative_error(actual, expected):.2g}"
    assert equal(actual, expected), f"{what} {difference}"


def assert_same_kind(actual: torch.Tensor, expected: torch.Tensor, what: str, strides: bool) -> None:
    """Check that two tensors agree in dtype, shape, layout and, where they are dense, strides."""
    assert actual.dtype is expected.dtype, f"{what}: {actual.dtype} for {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: {actual.shape} for {expected.shape}"
    assert actual.layout is expected.layout, what
    if strides and actual.layout is torch.strided and actual.numel():
        assert actual.stride() == expected.stride(), f"{what}: strides {actual.stride()} for {expected.stride()}"


def equal(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Tell whether two dense tensors have the same values; NaN equals NaN."""
    return bool(torch.isclose(left, right, rtol=0, atol=0, equal_nan=True).all())


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as a dense one."""
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference of two tensors over the norm of the second, infinite at a NaN of one only.

    Elements that are infinite or NaN in both count as equal.
    """
    wide = torch.complex128 if expected.is_complex() else torch.float64
    left, right = actual.detach().to(wide).flatten(), expected.detach().to(wide).flatten()
    finite = right.isfinite()
    if not left[finite].isfinite().all():
        return float("inf")
    left, right = left[finite], right[finite]
    return float((left - right).norm() / right.norm().clamp_min(1e-6))


def assert_near(
    actual: Outcome, expected: Outcome, bound: float, gradient_bound: float, *, strides: bool = True
) -> None:
    """Check that two outcomes agree in dtypes and strides, and that values are within relative bounds."""
    assert len(actual.outputs) == len(expected.outputs)
    for index, (one, other) in enumerate(zip(actual.outputs, expected.outputs, strict=True)):
        _assert_near_leaf(one, other, f"output {index}", bound, strides)
    gradients = list(_gradients(actual, expected))
    # One that is small beside the others is what rounding leaves of terms that cancel, as that of the bias of keys.
    largest = max((_largest_of(other) for _, other in gradients), default=0.0)
    for index, (one, other) in enumerate(gradients):
        share = min(1.0, _largest_of(other) / (0.1 * largest)) if largest else 1.0
        _assert_near_leaf(one, other, f"gradient {index}", gradient_bound / max(share, 1e-6), False)


def _largest_of(value: Any) -> float:
    """Return the largest finite magnitude in a tensor, 0 for anything else."""
    if not isinstance(value, torch.Tensor) or not value.numel():
        return 0.0
    return float(dense(value).detach().abs().double().nan_to_num(0.0, 0.0, 0.0).max())


def _assert_near_leaf(actual: Any, expected: Any, what: str, bound: float, strides: bool) -> None:
    inexact = isinstance(expected, torch.Tensor) and (expected.is_floating_point() or expected.is_complex())
    if not inexact or not isinstance(actual, torch.Tensor):
        assert_equal_leaf(actual, expected, what, strides)
        return
    assert_same_kind(actual, expected, what, strides)
    error = relative_error(dense(actual), dense(expected))
    assert error <= bound, f"{what} differs by {error:.2g}, allowed {bound}"
