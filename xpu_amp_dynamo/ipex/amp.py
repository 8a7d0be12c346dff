"""``torch.xpu.amp``, as IPEX had it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.ipex.chosen_policy import policy_to_install
from xpu_amp_dynamo.policy.devices import check_lower_dtype
from xpu_amp_dynamo.runtime.autocast import autocast as region
from xpu_amp_dynamo.runtime.installation import ensure_installed

__all__ = [
    "GradScaler",
    "autocast",
    "custom_bwd",
    "custom_fwd",
    "get_autocast_xpu_dtype",
    "is_autocast_xpu_enabled",
    "set_autocast_xpu_dtype",
    "set_autocast_xpu_enabled",
]


def autocast(enabled: bool = True, dtype: torch.dtype = torch.bfloat16, cache_enabled: bool = True) -> torch.autocast:
    """Return a region of mixed precision on XPUs, with the arguments in IPEX's order.

    The first enabled region installs the policy that :func:`install_torch_xpu_amp` was given, as
    ``xpu_amp_dynamo.autocast`` does.

    Args:
        enabled: False makes a region that runs in the dtypes of its inputs.
        dtype: the lower precision, ``torch.bfloat16`` or ``torch.float16``.
        cache_enabled: keep the casts of float32 parameters until the outermost region ends.

    Returns:
        A ``torch.autocast`` object of device type ``"xpu"``: a context manager, and a decorator of functions.

    Raises:
        InvalidOptionError: ``enabled`` is no bool: the arguments of ``torch.autocast`` have another order.
        UnsupportedDtypeError: ``dtype`` is neither bfloat16 nor float16.
    """
    if not isinstance(enabled, bool):
        raise InvalidOptionError(_not_a_bool(enabled))
    return region("xpu", dtype, enabled, cache_enabled, policy=policy_to_install())


def _not_a_bool(enabled: object) -> str:
    """Say what is wrong with a first argument, and the fix."""
    if callable(enabled) and not isinstance(enabled, torch.dtype):
        return "torch.xpu.amp.autocast is used as @torch.xpu.amp.autocast(), with the parentheses"
    return (
        f"the first argument of torch.xpu.amp.autocast is enabled, a bool, and was {enabled!r}; the order is enabled, "
        "dtype, cache_enabled. Name the argument (dtype=torch.bfloat16), and leave the device type out, which is 'xpu'"
    )


def custom_fwd(fwd: Callable[..., Any] | None = None, *, cast_inputs: torch.dtype | None = None) -> Callable[..., Any]:
    """Decorate the ``forward`` of a ``torch.autograd.Function``: ``torch.amp.custom_fwd`` for XPUs.

    IPEX's own cast no input, since it looked for CUDA tensors, and kept the state of CUDA's regions.

    Args:
        fwd: the method.
        cast_inputs: what floating-point inputs are cast to in a region; the method then runs outside of it.
    """
    return torch.amp.custom_fwd(fwd, device_type="xpu", cast_inputs=cast_inputs)


def custom_bwd(bwd: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Decorate the ``backward`` of a ``torch.autograd.Function``: it runs in the autocast state of its forward.

    Args:
        bwd: the method.
    """
    return torch.amp.custom_bwd(bwd, device_type="xpu")


class GradScaler(torch.amp.GradScaler):
    """``torch.amp.GradScaler`` for XPUs.

    Args:
        init_scale: the first scale factor.
        growth_factor: what it is multiplied by after ``growth_interval`` steps without an infinity.
        backoff_factor: what it is multiplied by after a step with one.
        growth_interval: how many steps without an infinity let it grow.
        enabled: False makes a scaler that does nothing.
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        super().__init__("xpu", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


def get_autocast_xpu_dtype() -> torch.dtype:
    """Return the lower precision of XPU regions: that of the innermost one, else the default."""
    return torch.get_autocast_dtype("xpu")


def set_autocast_xpu_dtype(dtype: torch.dtype) -> None:
    """Set the lower precision of XPU regions in this thread.

    Raises:
        UnsupportedDtypeError: ``dtype`` is neither bfloat16 nor float16.
    """
    torch.set_autocast_dtype("xpu", check_lower_dtype(dtype))


def is_autocast_xpu_enabled() -> bool:
    """Tell whether an XPU region is on in this thread."""
    return torch.is_autocast_enabled("xpu")


def set_autocast_xpu_enabled(enabled: bool) -> None:
    """Turn autocast for XPUs on or off in this thread; turned on first, it installs the policy as a region does."""
    if enabled:
        ensure_installed(policy_to_install(), "xpu")
    torch.set_autocast_enabled("xpu", enabled)
