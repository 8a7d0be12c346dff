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


def register_backend(name: str, compiler: Callable[..., Any]) -> None:
    """Register a function that compiles a graph and example inputs under a name."""
    registry.register_backend(compiler, name=name)


def unregister_backend(name: str) -> None:
    """Take a backend back that this process registered; nothing happens if there is none of the name."""
    registry._BACKENDS.pop(name, None)
    registry._COMPILER_FNS.pop(name, None)
