"""Tells of tensors that collectives write to, which version counters do not count. Checked on torch 2.13.0."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from xpu_amp_dynamo.compat.dispatcher import DispatchKey, keys_behind, redispatch_of, registered_op_names, unregister
from xpu_amp_dynamo.compat.op_types import OpOverload
from xpu_amp_dynamo.compat.pytree import leaves_of
from xpu_amp_dynamo.compat.uncompiled_frames import pass_over

# Where PyTorch itself counts writes, for ops that say in their schemas what they write to; collectives do not.
_KEY = DispatchKey.ADInplaceOrView


def watch_collectives(on_write: Callable[[Iterable[torch.Tensor]], None]) -> Callable[[], None]:
    """Watch the collectives of ``torch.distributed`` that write to tensors, but not those in inference mode.

    Args:
        on_write: called with all tensors that a collective was given, when it returned. One that runs on by itself may
            not have written yet.

    Returns:
        What ends the watch.
    """
    library = torch.library.Library("c10d", "IMPL")
    for op in _writing_collectives():
        library.impl(op, _watched(op, on_write), "ADInplaceOrView", with_keyset=True)

    def stop() -> None:
        unregister(library)

    return stop


def _writing_collectives() -> list[OpOverload]:
    """List the collectives: their names end as those of in-place ops do. None are registered without distributed."""
    names = [name.removeprefix("c10d::") for name in registered_op_names() if name.startswith("c10d::")]
    return [getattr(torch.ops.c10d, name).default for name in names if name.endswith("_")]


def _watched(op: OpOverload, on_write: Callable[[Iterable[torch.Tensor]], None]) -> Callable[..., Any]:
    behind, run = keys_behind(_KEY), redispatch_of(op)

    def kernel(keys: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return run(keys & behind, *args, **kwargs)
        finally:
            on_write(leaf for leaf in leaves_of((args, kwargs)) if isinstance(leaf, torch.Tensor))

    pass_over(kernel.__code__)
    return kernel
