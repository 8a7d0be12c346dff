"""Measures assignments: how far a model is from float32, and what a call of it costs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from xpu_amp_dynamo.compat.autocast import disabling_autocast
from xpu_amp_dynamo.compat.pytree import leaves_of, map_tensors, tensors_of_result
from xpu_amp_dynamo.explanation.relative_error import largest_relative_error
from xpu_amp_dynamo.explanation.unchanged import leaving_unchanged
from xpu_amp_dynamo.simulator.xpu_kernels import run_backward

Metric = Callable[[Any, Any], Any]
Options = Mapping[str, Any]
# What an inner backend needs that compiles nothing: the same ops, casts and dtypes, tried in a fraction of the time.
QUICK: dict[str, Any] = {"inner_backend": "eager", "mode": None, "inductor": {}, "weights": "recast"}


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a model."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def copy(self) -> Call:
        """Return arguments of the same values that share nothing with these, since models write to what they get."""
        detached = {id(t): t.detach().clone() for t in leaves_of((self.args, dict(self.kwargs))) if _is_computed(t)}
        args, kwargs = copy.deepcopy((self.args, dict(self.kwargs)), detached)
        return Call(args, kwargs)


@dataclass
class ErrorMeter:
    """How far a model is from float32 with given options.

    Args:
        model: the model, not compiled.
        calls: what it is called with.
        train: whether the backward runs too.
        metric: tells how far an output is from the one in float32; the largest relative error of their tensors if None,
            with the gradients of all parameters together as one more where the backward runs.

    Raises:
        TypeError: there is no metric, and the model returns no floating-point numbers.
    """

    model: torch.nn.Module
    calls: Sequence[Call]
    train: bool
    metric: Metric | None = None
    references: list[_Results] = field(init=False)

    def __post_init__(self) -> None:
        self.references = [self._run(self.model, call) for call in self.calls]
        if self.metric is None and not any(map(_has_floats, self.references)):
            raise TypeError(
                "the model returns no finite floating-point numbers in float32, whose error would count; give metric, "
                "a function of an output and the one in float32"
            )

    def errors(self, options: Options) -> list[float]:
        """Return the error of each call; infinite where a number turns into an infinity or NaN.

        Args:
            options: those of the backend.

        Raises:
            TypeError: the metric gives no number.
            ValueError: it gives one below 0.
        """
        torch.compiler.reset()
        compiled = torch.compile(self.model, backend="xpu_amp", options=dict(options))
        pairs = zip(self.calls, self.references, strict=True)
        errors = [self._error(self._run(compiled, call), wanted) for call, wanted in pairs]
        torch.compiler.reset()
        return errors

    def _run(self, function: Callable[..., Any], call: Call) -> _Results:
        call = call.copy()
        with leaving_unchanged(self.model), disabling_autocast(), torch.set_grad_enabled(self.train):
            output = function(*call.args, **call.kwargs)
            if self.train:
                run_backward(output)
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return _Results(map_tensors(torch.Tensor.detach, output), gradients)

    def _error(self, found: _Results, wanted: _Results) -> float:
        if self.metric is not None:
            return _number(self.metric(found.output, wanted.output))
        gradients = [_flat(found.gradients), _flat(wanted.gradients)] if wanted.gradients else [(), ()]
        return max(largest_relative_error(found.output, wanted.output), largest_relative_error(*gradients))


@dataclass(frozen=True)
class _Results:
    """What a call returns, and the gradients of the model's parameters."""

    output: Any
    gradients: Sequence[torch.Tensor]


def _has_floats(results: _Results) -> bool:
    tensors = (*tensors_of_result(results.output), *results.gradients)
    return any(tensor.is_floating_point() and bool(tensor.isfinite().any()) for tensor in tensors)


def _flat(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return all gradients as one vector: small ones of a parameter must not weigh as much as large ones of others."""
    return torch.cat([g.to_dense().flatten().double() for g in gradients])


def _number(error: Any) -> float:
    """Return what a metric gives as a number; NaN is as far off as can be."""
    try:
        number = float(error)
    except (TypeError, ValueError, RuntimeError) as cause:
        given = f"a tensor of shape {tuple(error.shape)}" if isinstance(error, torch.Tensor) else repr(error)
        raise TypeError(
            f"metric returned {given}; it must return a number: how far an output is from the one in float32"
        ) from cause
    if number < 0:
        raise ValueError(f"metric returned {number}; it must be at least 0: how far an output is from float32")
    return math.inf if math.isnan(number) else number


def _is_computed(leaf: object) -> bool:
    """Tell whether something is a tensor with a history, which cannot be copied as it is."""
    return isinstance(leaf, torch.Tensor) and not leaf.is_leaf
