"""Dynamo's registry of backends. Checked on torch 2.13.0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._dynamo.backends import registry


def backend_names() -> list[str]:
    """List the names of all backends that are registered, those meant for debugging too."""
    return registry.list_backends(())


def backend_named(name: str) -> Callable[..., Any]:
    """Return the function that compiles a graph and example inputs, by the name of the backend."""
    return registry.lookup_backend(name)
