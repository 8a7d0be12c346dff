"""The arguments of ``tune``: checked before anything is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from xpu_amp_dynamo.environment_options import parse_with_environment
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.options import BackendOptions
from xpu_amp_dynamo.tuning.cost import COSTS
from xpu_amp_dynamo.tuning.measure import Call


def checked_calls(model: object, inputs: Any) -> list[Call]:
    """Return the calls that inputs stand for.

    Args:
        model: what is to be tuned.
        inputs: a tuple of arguments, a dict of keyword arguments, or a list of such.

    Raises:
        TypeError: this is no model, or no inputs.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"tune takes a model, a torch.nn.Module, and got {type(model).__name__}")
    if hasattr(model, "_orig_mod"):
        raise TypeError("tune takes a model that is not compiled; give what torch.compile was given")
    calls = inputs if isinstance(inputs, list) else [inputs]
    wrong = [type(call).__name__ for call in calls if not isinstance(call, (tuple, dict))]
    if wrong or not calls:
        raise TypeError(
            f"inputs are {wrong or 'an empty list'}; give a tuple of arguments, a dict of keyword arguments, or a list "
            "of such"
        )
    return [Call((), call) if isinstance(call, dict) else Call(call, {}) for call in calls]


def checked_options(
    options: Mapping[str, Any] | None, metric: object, tolerance: object, budget: object, cost: object, train: object
) -> BackendOptions:
    """Return the options once everything that was given is known to be legal.

    Raises:
        InvalidOptionError: a number or an option is outside its legal set.
        TypeError: the metric is no function.
    """
    if metric is not None and not callable(metric):
        raise TypeError(f"metric is {metric!r}; give a function of an output and the one in float32, or None")
    number = isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool)
    if not (number and 0 <= tolerance < math.inf):  # type: ignore[operator]
        raise InvalidOptionError(f"tolerance is {tolerance!r}; it must be a number of at least 0")
    if budget is not None and not (isinstance(budget, int) and not isinstance(budget, bool) and budget > 0):
        raise InvalidOptionError(f"budget is {budget!r}; it must be a number of trials, at least 1, or None")
    if not isinstance(train, bool):
        raise InvalidOptionError(f"train is {train!r}; it must be True or False")
    if train and torch.is_inference_mode_enabled():
        raise InvalidOptionError("train is True in inference mode, which has no gradients; call tune outside of it")
    if cost not in COSTS:
        raise InvalidOptionError(f"cost is {cost!r}; it must be one of {list(COSTS)}")
    parsed = parse_with_environment(options)
    if cost == "bytes" and parsed.inner_backend != "inductor":
        raise InvalidOptionError(
            f"option 'inner_backend' is {parsed.inner_backend!r}, and bytes are those of Inductor's kernels; leave it "
            "out, or give cost='time'"
        )
    return parsed
