"""The warning that float16 training needs loss scaling."""

from __future__ import annotations

import functools
import gc
import inspect
import warnings
from pathlib import Path
from types import FrameType

import torch

_OURS_AND_TORCH = (str(Path(__file__).parent), str(Path(torch.__file__).parent))


def warn_of_loss_scaling() -> None:
    """Warn once a process, where the user calls a model, that float16 gradients underflow without a scaler.

    Nothing happens where a ``torch.amp.GradScaler`` exists that is enabled.
    """
    if not any(issubclass(type(o), torch.amp.GradScaler) and o.is_enabled() for o in gc.get_objects()):
        _warn_once()


@functools.cache
def _warn_once() -> None:
    frame = _frame_of_user()
    warnings.warn_explicit(
        "float16 training needs loss scaling, or small gradients become zero: use torch.amp.GradScaler, or bfloat16, "
        "which needs none",
        UserWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__"),
    )


def _frame_of_user() -> FrameType:
    """Return the innermost frame that is neither PyTorch's nor this package's."""
    frame = inspect.currentframe()
    assert frame is not None
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS_AND_TORCH):
        frame = frame.f_back
    return frame
