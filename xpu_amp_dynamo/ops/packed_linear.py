"""The op that multiplies by weights in the layout of oneDNN, and what packs weights for it.

Inductor takes packed weights as constants only (torch 2.13.0), and a weight that may be updated is none. So graphs read
an empty tensor of shape (out, in, 0) in its place, of which the packed weight is an attribute.
"""

from __future__ import annotations

from typing import Any

import torch

from xpu_amp_dynamo.compat.tensors import PACKED_LAYOUT

# oneDNN's ops are private: checked on torch 2.13.0.
_onednn: Any = torch.ops.mkldnn
_SUPPORT = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}

# The layout of packed weights.
PACKED = PACKED_LAYOUT

torch.library.define(
    "xpu_amp_dynamo::packed_linear",
    "(Tensor input, Tensor packed_weight, Tensor? bias) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout),
)
PACKED_LINEAR = torch.ops.xpu_amp_dynamo.packed_linear.default


def can_pack(dtype: torch.dtype) -> bool:
    """Tell whether oneDNN multiplies in a dtype, a lower precision, on this processor."""
    return torch.backends.mkldnn.is_available() and dtype in _SUPPORT and getattr(_onednn, _SUPPORT[dtype])()


def pack(weight: torch.Tensor) -> torch.Tensor:
    """Pack the weight of a linear layer.

    Args:
        weight: of shape (out, in), on the CPU, in a dtype of which ``can_pack`` is true.

    Returns:
        What ``PACKED_LINEAR`` takes for it: a tensor of shape (out, in, 0).
    """
    stand_in: Any = stand_in_for(weight)
    stand_in.packed = _onednn._reorder_linear_weight(weight.contiguous(), None)
    return stand_in


def stand_in_for(weight: torch.Tensor) -> torch.Tensor:
    """Return an empty tensor of the shape that stands for a packed weight."""
    return weight.new_empty(*weight.shape, 0)


def packed_weight_of(stand_in: torch.Tensor) -> torch.Tensor | None:
    """Return the packed weight that a tensor stands for, None if it is any other tensor."""
    return getattr(stand_in, "packed", None)


def _multiply(input: torch.Tensor, packed_weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if not input.numel():
        return _output_of(input, packed_weight, bias)
    return _onednn._linear_pointwise.default(input, packed_weight_of(packed_weight), bias, "none", [], "")


def _output_of(input: torch.Tensor, packed_weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return input.new_empty(*input.shape[:-1], packed_weight.shape[0])


torch.library.impl(PACKED_LINEAR.name(), "CPU", _multiply)
torch.library.register_fake(PACKED_LINEAR.name(), _output_of)
