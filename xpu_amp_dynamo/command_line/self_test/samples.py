"""Small calls of ops from all lists of the policy ``"xpu"``, and what each has to give. Data only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

# What the policy does with an op, as the documentation states it.
LOWER, FLOAT32, PROMOTE, FOLLOW, UNLISTED = "lower_precision", "float32", "promote", "follow", "unlisted"
CATEGORIES = (LOWER, FLOAT32, PROMOTE, FOLLOW, UNLISTED)


@dataclass(frozen=True)
class Sample:
    """One call of an op.

    Args:
        name: the op.
        category: what the policy does with it.
        function: calls it.
        sizes: the sizes of the floating-point tensors that it is called with.
    """

    name: str
    category: str
    function: Callable[..., Any]
    sizes: tuple[tuple[int, ...], ...]


def _labels(x: torch.Tensor) -> torch.Tensor:
    """Return integers below 5, one for each row."""
    return torch.arange(x.shape[0], device=x.device) % 5


def _columns(x: torch.Tensor) -> torch.Tensor:
    """Return indices of the shape of a matrix, each row all columns in turn."""
    return torch.arange(x.shape[1], device=x.device).expand(x.shape)


SQUARE = ((16, 16), (16, 16))
SAMPLES = (
    Sample("linear", LOWER, F.linear, ((8, 32), (16, 32), (16,))),
    Sample("matmul", LOWER, torch.matmul, ((2, 8, 32), (32, 16))),
    Sample("mm", LOWER, torch.mm, SQUARE),
    Sample("mv", LOWER, torch.mv, ((16, 16), (16,))),
    Sample("bmm", LOWER, torch.bmm, ((2, 8, 16), (2, 16, 8))),
    Sample("addmm", LOWER, torch.addmm, ((8,), (4, 16), (16, 8))),
    Sample("baddbmm", LOWER, torch.baddbmm, ((2, 8, 8), (2, 8, 16), (2, 16, 8))),
    Sample("addbmm", LOWER, torch.addbmm, ((8, 8), (2, 8, 16), (2, 16, 8))),
    Sample("conv1d", LOWER, F.conv1d, ((2, 4, 16), (8, 4, 3))),
    Sample("conv2d", LOWER, F.conv2d, ((2, 4, 8, 8), (8, 4, 3, 3))),
    Sample("conv3d", LOWER, F.conv3d, ((1, 4, 4, 6, 6), (4, 4, 3, 3, 3))),
    Sample("conv_transpose2d", LOWER, F.conv_transpose2d, ((2, 4, 8, 8), (4, 8, 3, 3))),
    Sample("scaled_dot_product_attention", LOWER, F.scaled_dot_product_attention, ((2, 2, 8, 16),) * 3),
    Sample("prelu", LOWER, F.prelu, ((4, 8), (8,))),
    Sample("log_softmax", FLOAT32, lambda x: F.log_softmax(x, -1), ((8, 16),)),
    Sample("nll_loss", FLOAT32, lambda x: F.nll_loss(x, _labels(x)), ((8, 5),)),
    Sample("cross_entropy", FLOAT32, lambda x: F.cross_entropy(x, _labels(x)), ((8, 5),)),
    Sample("fft.fft", FLOAT32, torch.fft.fft, ((4, 16),)),
    Sample("fft.rfft", FLOAT32, torch.fft.rfft, ((4, 16),)),
    Sample("fft.hfft", FLOAT32, torch.fft.hfft, ((4, 9),)),
    Sample("cat", PROMOTE, lambda a, b: torch.cat([a, b]), SQUARE),
    Sample("stack", PROMOTE, lambda a, b: torch.stack([a, b]), SQUARE),
    Sample("dot", PROMOTE, torch.dot, ((16,), (16,))),
    Sample("tensordot", PROMOTE, lambda a, b: torch.tensordot(a, b, 1), SQUARE),
    Sample("lerp", PROMOTE, lambda a, b: torch.lerp(a, b, 0.25), SQUARE),
    Sample("mse_loss", PROMOTE, F.mse_loss, SQUARE),
    Sample("index_add", PROMOTE, lambda a, b: torch.index_add(a, 0, _labels(b), b), ((5, 16), (8, 16))),
    Sample("scatter_add", PROMOTE, lambda a, b: torch.scatter_add(a, 1, _columns(a), b), SQUARE),
    Sample("grid_sample", PROMOTE, lambda a, b: F.grid_sample(a, b, align_corners=False), ((1, 2, 8, 8), (1, 4, 4, 2))),
    Sample("layer_norm", FOLLOW, lambda x, w, b: F.layer_norm(x, (16,), w, b), ((4, 16), (16,), (16,))),
    Sample("group_norm", FOLLOW, lambda x, w, b: F.group_norm(x, 2, w, b), ((2, 4, 8), (4,), (4,))),
    Sample("rms_norm", FOLLOW, lambda x, w: F.rms_norm(x, (16,), w), ((4, 16), (16,))),
    Sample("relu", UNLISTED, torch.relu, ((4, 16),)),
    Sample("gelu", UNLISTED, F.gelu, ((4, 16),)),
    Sample("softmax", UNLISTED, lambda x: torch.softmax(x, -1), ((4, 16),)),
    Sample("mul", UNLISTED, torch.mul, SQUARE),
    Sample("sum", UNLISTED, lambda x: torch.sum(x, -1), ((4, 16),)),
)
