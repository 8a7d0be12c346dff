"""Imports torchvision beside a torch that its compiled ops were not built for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import torch

# What torchvision 0.28's Python files describe when they are imported. Its wheels on PyPI are built for CUDA and cannot
# load beside a CPU build of torch; all models but those with boxes are made of torch's own ops.
OPS = (
    "nms",
    "qnms",
    "roi_align",
    "_roi_align_backward",
    "qroi_align",
    "ps_roi_align",
    "_ps_roi_align_backward",
    "roi_pool",
    "_roi_pool_backward",
    "ps_roi_pool",
    "_ps_roi_pool_backward",
    "deform_conv2d",
    "_deform_conv2d_backward",
)


# Where the Makefile puts torchvision if nothing can import it.
ASIDE = Path(sys.prefix) / "aside"


def import_torchvision() -> ModuleType:
    """Import torchvision, with ops that have names and no kernels where its own cannot be loaded.

    Returns:
        The package. A model that calls one of its ops then raises NotImplementedError when it runs.
    """
    if ASIDE.is_dir() and str(ASIDE) not in sys.path:
        sys.path.append(str(ASIDE))
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for op in OPS:
        torch.library.define(f"torchvision::{op}", "(...) -> Tensor")
    return importlib.import_module("torchvision")
