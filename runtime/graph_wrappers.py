"""What runs around a compiled graph at each call, for the store of casted weights."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from xpu_amp_dynamo.runtime.cached_casts import CachedCasts
from xpu_amp_dynamo.runtime.kept_weight import Layout
from xpu_amp_dynamo.runtime.out_of_memory import make_room
from xpu_amp_dynamo.runtime.weight_store import WEIGHTS

logger = logging.getLogger(__name__)

CompiledFunction = Callable[..., Any]


def with_kept_casts(
    compiled: CompiledFunction, wanted: Sequence[tuple[int, torch.dtype, Layout]], otherwise: CompiledFunction
) -> CompiledFunction:
    """Return a compiled function that gets the casts of weights from the store.

    Args:
        compiled: takes the casts behind its other arguments.
        wanted: for each cast the position of the weight among the arguments, the dtype and the layout.
        otherwise: does the same without them, in less memory; called when there is none for casts.
    """
    casts = CachedCasts(WEIGHTS, wanted)

    @functools.wraps(compiled, assigned=("__name__", "__doc__"))
    def run(*args: Any) -> Any:
        try:
            kept = casts.of(args)
        except RuntimeError as error:
            make_room(WEIGHTS, error)
            return otherwise(*args)
        _say_what_is_kept()
        return compiled(*args, *kept)

    return run


@functools.cache
def _say_what_is_kept() -> None:
    """Log, once a process, how much memory casted weights take."""
    logger.info(
        "the first compiled graph keeps casted weights: %d of %d bytes; options={'weights': 'recast'} keeps none, "
        "xpu_amp_dynamo.release_weights() frees them",
        len(WEIGHTS),
        WEIGHTS.bytes_held(),
    )


def telling_of_writes(compiled: CompiledFunction, written: Collection[int]) -> CompiledFunction:
    """Return a compiled function after which the store knows that weights changed.

    Args:
        compiled: a compiled function.
        written: the positions of the weights among its arguments that it writes to. Not all backends count the writes
            in the version counter: that of name ``"eager"`` does not count those through ``.data``.
    """
    if not written:
        return compiled

    @functools.wraps(compiled, assigned=("__name__", "__doc__"))
    def run(*args: Any) -> Any:
        try:
            return compiled(*args)
        finally:
            WEIGHTS.notice_writes(args[position] for position in written)

    return run
