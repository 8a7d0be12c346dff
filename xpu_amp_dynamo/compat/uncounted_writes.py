"""Tells of writes that version counters do not count: those of collectives and fused optimizers (torch 2.13.0)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from xpu_amp_dynamo.compat.dispatcher import DispatchKey, keys_behind, redispatch_of, registered_op_names, unregister
from xpu_amp_dynamo.compat.op_types import OpOverload, overload_named
from xpu_amp_dynamo.compat.pytree import leaves_of
from xpu_amp_dynamo.compat.uncompiled_frames import pass_over

# Where PyTorch itself counts writes, for ops that say in their schemas what they write to. Collectives do not say it,
# and of the others those of fused optimizers have no kernel there.
_KEY = DispatchKey.ADInplaceOrView
# By namespace, how the names of these ops begin. They end in an underscore, as those of all in-place ops.
_BEGINNINGS = {"c10d": "", "aten": "_fused_"}


def watch_uncounted_writes(on_write: Callable[[Iterable[torch.Tensor]], None]) -> Callable[[], None]:
    """Watch the collectives of ``torch.distributed`` and fused optimizers, but no collectives in inference mode.

    Args:
        on_write: called with all tensors that an op was given, when it returned. A collective that runs on by itself
            may not have written yet.

    Returns:
        What ends the watch.
    """
    libraries = [torch.library.Library(namespace, "IMPL") for namespace in _BEGINNINGS]
    names = registered_op_names()
    for library in libraries:
        for op in _uncounted(library.ns, names):
            library.impl(op, _watched(op, on_write), "ADInplaceOrView", with_keyset=True)

    def stop() -> None:
        for library in libraries:
            unregister(library)

    return stop


def _uncounted(namespace: str, names: Iterable[str]) -> list[OpOverload]:
    """Return the ops of a namespace among all. Builds without ``torch.distributed`` have no collectives."""
    start = f"{namespace}::{_BEGINNINGS[namespace]}"
    return [overload_named(name) for name in names if name.startswith(start) and name.partition(".")[0].endswith("_")]


def _watched(op: OpOverload, on_write: Callable[[Iterable[torch.Tensor]], None]) -> Callable[..., Any]:
    behind, run = keys_behind(_KEY), redispatch_of(op)

    def kernel(keys: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return run(keys & behind, *args, **kwargs)
        finally:
            on_write(leaf for leaf in leaves_of((args, kwargs)) if isinstance(leaf, torch.Tensor))

    pass_over(kernel.__code__)
    return kernel
