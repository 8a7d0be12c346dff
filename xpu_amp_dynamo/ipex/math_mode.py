"""IPEX's modes of float32 arithmetic, mapped onto PyTorch's settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import IntEnum

import torch

from xpu_amp_dynamo.errors import InvalidOptionError

_INSTEAD_OF_BF32 = "put the region under torch.xpu.amp.autocast(dtype=torch.bfloat16), or use FP32MathMode.TF32"


class FP32MathMode(IntEnum):
    """What products and convolutions of float32 tensors may round their operands to."""

    FP32 = 0
    TF32 = 1
    BF32 = 2


# Of a simulated XPU, which computes float32 as it is in any mode.
_simulated = [FP32MathMode.FP32]


def set_fp32_math_mode(mode: FP32MathMode = FP32MathMode.FP32, device: str = "cpu") -> None:
    """Let products and convolutions of float32 tensors round their operands, or forbid it.

    On XPUs this is ``torch.backends.mkldnn.allow_tf32``, and on a simulated one nothing, for it rounds no float32. On
    the CPU it is ``torch.set_float32_matmul_precision``, which is of CUDA too, and
    ``torch.backends.mkldnn.conv.fp32_precision``.

    Args:
        mode: ``FP32`` forbids it, ``TF32`` lets XPUs round to TensorFloat32, ``BF32`` lets CPUs round to bfloat16.
        device: ``"cpu"`` or ``"xpu"``.

    Raises:
        InvalidOptionError: there is no such mode or device, PyTorch has no setting that does it, or the build of
            PyTorch is for other devices. Nothing was changed.
    """
    mode = _checked(mode, device)
    if device == "xpu":
        _set_on_xpu(mode)
        return
    if mode is FP32MathMode.TF32:
        raise InvalidOptionError("CPUs round float32 to bfloat16 or not at all; use FP32MathMode.BF32 or FP32")
    lower = mode is FP32MathMode.BF32
    torch.set_float32_matmul_precision("medium" if lower else "highest")
    torch.backends.mkldnn.conv.fp32_precision = "bf16" if lower else "ieee"  # type: ignore[attr-defined]


def _set_on_xpu(mode: FP32MathMode) -> None:
    """Set the mode of XPUs."""
    if mode is FP32MathMode.BF32:
        raise InvalidOptionError(
            f"PyTorch has no setting by which XPUs compute float32 in bfloat16; {_INSTEAD_OF_BF32}"
        )
    if _built_for_xpus():
        torch.backends.mkldnn.allow_tf32 = mode is FP32MathMode.TF32  # type: ignore[assignment]
    elif mode is FP32MathMode.TF32 and not torch.xpu.is_available():
        raise InvalidOptionError("this build of PyTorch has no TF32 for XPUs; install one for XPUs, or use FP32")
    else:
        _simulated[:] = [mode]


def _built_for_xpus() -> bool:
    """Tell whether PyTorch has the setting, which elsewhere is None, and warns and does nothing when it is set."""
    return torch.backends.mkldnn.allow_tf32 is not None


def get_fp32_math_mode(device: str = "cpu") -> FP32MathMode:
    """Return the mode of a device.

    Args:
        device: ``"cpu"`` or ``"xpu"``.

    Raises:
        InvalidOptionError: there is no such device.
    """
    _checked(FP32MathMode.FP32, device)
    if device == "xpu":
        if not _built_for_xpus():
            return _simulated[0]
        return FP32MathMode.TF32 if torch.backends.mkldnn.allow_tf32 else FP32MathMode.FP32
    lower = torch.get_float32_matmul_precision() == "medium"
    return FP32MathMode.BF32 if lower else FP32MathMode.FP32


@contextlib.contextmanager
def fp32_math_mode(mode: FP32MathMode, device: str = "xpu") -> Iterator[None]:
    """Set a mode for as long as a context lasts.

    Args:
        mode: as for :func:`set_fp32_math_mode`.
        device: ``"cpu"`` or ``"xpu"``.
    """
    before = get_fp32_math_mode(device)
    set_fp32_math_mode(mode, device)
    try:
        yield
    finally:
        set_fp32_math_mode(before, device)


def set_xpu_fp32_math_mode(mode: FP32MathMode = FP32MathMode.FP32, device: str = "xpu") -> None:
    """Set the mode as :func:`set_fp32_math_mode` does, of XPUs unless another device is named."""
    set_fp32_math_mode(mode, device)


def get_xpu_fp32_math_mode(device: str = "xpu") -> FP32MathMode:
    """Return the mode as :func:`get_fp32_math_mode` does, of XPUs unless another device is named."""
    return get_fp32_math_mode(device)


def _checked(mode: FP32MathMode, device: str) -> FP32MathMode:
    """Return a mode if it and the device are legal."""
    if device not in ("cpu", "xpu"):
        raise InvalidOptionError(f"device {device!r} has no mode of float32 arithmetic; use 'cpu' or 'xpu'")
    try:
        return FP32MathMode(mode)
    except ValueError as error:
        modes = ", ".join(str(mode) for mode in FP32MathMode.__members__)
        raise InvalidOptionError(f"{mode!r} is no mode of float32 arithmetic; use FP32MathMode.{modes}") from error
