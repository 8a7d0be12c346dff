"""Optimizers that update float32 masters of weights that are stored in a lower precision."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch
from torch import nn

from xpu_amp_dynamo.ipex.stored_weights import renewed

Masters = dict[nn.Parameter, nn.Parameter]


class MasterWeights:
    """What an optimizer gets mixed in: a step, a load and copies that know of master weights.

    Outside of these the optimizer holds the model's own parameters, so that gradients are clipped, unscaled and zeroed
    as ever; its state, and its state dict, are those of training in float32.
    """

    master_weights: Masters
    param_groups: list[dict[str, Any]]
    state: dict[Any, Any]

    def step(self, *arguments: Any, **options: Any) -> Any:
        """Update the masters, and write them to the weights. The arguments are those of the optimizer's own step."""
        return step_on_masters(self, super().step, arguments, options)  # type: ignore[misc]

    # PyTorch runs hooks and profiles in the step that this one calls, and need not do so here again.
    step.hooked = True  # type: ignore[attr-defined]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this optimizer, or of one that trained in float32; state stays float32."""
        with _holding_masters(self):
            super().load_state_dict(state_dict)  # type: ignore[misc]

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        return {**state, "master_weights": self.master_weights}

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        base = next(each for each in type(self).__mro__ if not issubclass(each, MasterWeights))
        return _empty_optimizer, (base,), self.__getstate__()


@functools.cache
def _with_master_weights(base: Any) -> Any:
    """Return the class of optimizers of a class that have masters."""
    return type(base.__name__, (MasterWeights, base), {"__module__": base.__module__, "__doc__": base.__doc__})


def _empty_optimizer(base: Any) -> Any:
    """Return an optimizer that a copy or an unpickled state goes into."""
    cls = _with_master_weights(base)
    return cls.__new__(cls)


def give_masters(optimizer: torch.optim.Optimizer, masters: Masters) -> None:
    """Have an optimizer update masters in place of the weights that it holds, from now on.

    Its state stays float32, and schedulers that were made of it before keep seeing its steps.

    Args:
        optimizer: the optimizer.
        masters: the masters, by the weights that are stored lower; more than the optimizer holds are allowed.
    """
    if isinstance(optimizer, MasterWeights):
        optimizer.master_weights.update(masters)
        return
    wrapped_before = vars(optimizer).get("step")
    base: Any = type(optimizer)
    optimizer.__class__ = _with_master_weights(base)
    optimizer.master_weights = masters  # type: ignore[attr-defined]
    if wrapped_before is not None:
        optimizer.step = _on_masters(optimizer, wrapped_before)  # type: ignore[method-assign]


def _on_masters(optimizer: torch.optim.Optimizer, step: Callable[..., Any]) -> MethodType:
    """Return a step that a scheduler put on an optimizer, as a method that updates masters."""

    @functools.wraps(step)
    def on_masters(self: Any, *arguments: Any, **options: Any) -> Any:
        return step_on_masters(self, step, arguments, options)

    return MethodType(on_masters, optimizer)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def step_on_masters(optimizer: Any, step: Callable[..., Any], arguments: Any, options: dict[str, Any]) -> Any:
    """Call a step of an optimizer that holds masters meanwhile; its closure finds the weights in their place."""
    if arguments and arguments[0] is not None:
        arguments = (_with_weights(optimizer, arguments[0]), *arguments[1:])
    elif options.get("closure") is not None:
        options = {**options, "closure": _with_weights(optimizer, options["closure"])}
    _take_weights_and_gradients(optimizer)
    with _holding_masters(optimizer):
        try:
            return step(*arguments, **options)
        finally:
            _write_weights(optimizer)


def _with_weights(optimizer: Any, closure: Callable[[], Any]) -> Callable[[], Any]:
    """Return a closure that runs on the weights, and leaves its gradients on the masters."""

    def on_weights() -> Any:
        _write_weights(optimizer)
        _exchange(optimizer, _backwards(optimizer.master_weights))
        try:
            return closure()
        finally:
            _take_weights_and_gradients(optimizer)
            _exchange(optimizer, optimizer.master_weights)

    return on_weights


@contextlib.contextmanager
def _holding_masters(optimizer: Any) -> Iterator[None]:
    """Have an optimizer hold masters in place of weights."""
    _exchange(optimizer, optimizer.master_weights)
    try:
        yield
    finally:
        _exchange(optimizer, _backwards(optimizer.master_weights))


def _exchange(optimizer: Any, other: Masters) -> None:
    """Put other parameters in place of those that an optimizer holds, with their state. Lists stay the same objects."""
    for group in optimizer.param_groups:
        held = group["params"]
        for parameter in held:
            if parameter in other and parameter in optimizer.state:
                optimizer.state[other[parameter]] = optimizer.state.pop(parameter)
        held[:] = [other.get(parameter, parameter) for parameter in held]


def _backwards(masters: Masters) -> Masters:
    """Return the weights, by their masters."""
    return {master: weight for weight, master in masters.items()}


def parameters_of(optimizer: Any) -> set[nn.Parameter]:
    """Return the parameters that an optimizer holds."""
    return {parameter for group in optimizer.param_groups for parameter in group["params"]}


@torch.no_grad()
def _take_weights_and_gradients(optimizer: Any) -> None:
    """Give the masters what was written to their weights since the last step, and their gradients."""
    held = parameters_of(optimizer)
    for weight, master in optimizer.master_weights.items():
        if weight in held:
            master.data = renewed(weight, master)
            gradient = weight.grad
            master.grad = None if gradient is None else gradient.to(master.dtype)


@torch.no_grad()
def _write_weights(optimizer: Any) -> None:
    """Write the masters to their weights."""
    held = parameters_of(optimizer)
    for weight, master in optimizer.master_weights.items():
        if master in held:
            weight.copy_(master)
            master.grad = None
