"""The stand-in for Intel Extension for PyTorch: its names about precision, by xpu_amp_dynamo."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from xpu_amp_dynamo.ipex import names
from xpu_amp_dynamo.ipex.installation import install_torch_xpu_amp
from xpu_amp_dynamo.ipex.math_mode import FP32MathMode, get_fp32_math_mode, set_fp32_math_mode
from xpu_amp_dynamo.ipex.optimize import optimize

__version__ = names.VERSION
__all__ = [
    "FP32MathMode",
    "disable_auto_channels_last",
    "enable_auto_channels_last",
    "enable_onednn_fusion",
    "get_fp32_math_mode",
    "optimize",
    "set_fp32_math_mode",
    "xpu",
]

# As with IPEX, the import is what gives torch.xpu its names.
install_torch_xpu_amp()
xpu = torch.xpu
sys.modules[f"{__name__}.xpu"] = torch.xpu
sys.modules[f"{__name__}.xpu.amp"] = sys.modules["torch.xpu.amp"]


def enable_auto_channels_last() -> None:
    """Do nothing: layouts are Inductor's, and those of the model."""


def disable_auto_channels_last() -> None:
    """Do nothing: layouts are Inductor's, and those of the model."""


def enable_onednn_fusion(enabled: bool) -> None:
    """Do nothing: what is fused is Inductor's to decide."""


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):  # Python and its tools ask for such of any module.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise names.no_counterpart(name)


class _Refusal(importlib.abc.MetaPathFinder):
    """Explains imports of submodules that have no counterpart."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> None:
        """Refuse a submodule of the stand-in.

        Raises:
            ImportError: it is one; all that there are were imported above. Python passes over a ModuleNotFoundError
                in ``from intel_extension_for_pytorch import llm``, and gives no reason.
        """
        if fullname.startswith(f"{__name__}."):
            error = names.no_counterpart(fullname.removeprefix(f"{__name__}."))
            raise ImportError(str(error), name=fullname)


sys.meta_path.insert(0, _Refusal())
