"""Leaves a model as it was, whatever running it changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from xpu_amp_dynamo.compat.module_attributes import ModuleAttributes


@contextlib.contextmanager
def leaving_unchanged(model: Callable[..., Any]) -> Iterator[None]:
    """Put back what running a model changes when the context ends: its own attributes, and the random numbers' state.

    These are buffers with their values, gradients, and what its modules' code assigns. What is inside of that stays
    changed: a list that the model appends to.

    Args:
        model: a module; of a function nothing is known.
    """
    module = model if isinstance(model, torch.nn.Module) else torch.nn.Module()
    attributes = [ModuleAttributes(each) for each in module.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    accelerator = torch.accelerator.current_accelerator()
    with torch.random.fork_rng(device_type=accelerator.type if accelerator is not None else "cuda"):
        try:
            yield
        finally:
            for each in attributes:
                each.put_back()
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            for parameter, gradient in gradients:
                parameter.grad = gradient
