"""Leaves a model as it was, whatever running it changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch


@contextlib.contextmanager
def leaving_unchanged(model: Callable[..., Any]) -> Iterator[None]:
    """Put a model's buffers and gradients back when the context ends, and the state of the random numbers.

    Args:
        model: a module; of a function nothing is known.
    """
    module = model if isinstance(model, torch.nn.Module) else torch.nn.Module()
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    accelerator = torch.accelerator.current_accelerator()
    with torch.random.fork_rng(device_type=accelerator.type if accelerator is not None else "cuda"):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
            for parameter, gradient in gradients:
                parameter.grad = gradient
