"""The specification stated once more, from the document and not from the package's tables.

Names are those of PyTorch's OpInfo database. Each says how a call behaves in a region: which of its tensors are
cast, and to what. Everything else runs as it would without autocast.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from tests.support.samples import Call

# "Ops that can autocast to bfloat16", "Ops that can autocast to float16"
DOCUMENTED_LOWER = {
    "nn.functional.conv1d",
    "nn.functional.conv2d",
    "nn.functional.conv3d",
    "bmm",
    "bmm.triton_optimized",
    "baddbmm",
    "addmm",
    "addmm.decomposed",
    "nn.functional.linear",
    "matmul",
    "__rmatmul__",
}
# "Ops that can autocast to float32"
DOCUMENTED_FLOAT32 = {
    "log_softmax",
    "log_softmax.with_dtype",
    "special.log_softmax",
    "nn.functional.nll_loss",
    "nn.functional.cross_entropy",
    *(f"fft.{name}" for name in ("fft", "ifft", "fft2", "ifft2", "fftn", "ifftn")),
    *(f"fft.{name}" for name in ("rfft", "irfft", "rfft2", "irfft2", "rfftn", "irfftn", "hfft", "ihfft")),
}
# "Ops that promote to the widest input type"
DOCUMENTED_PROMOTE = {"cat", "stack", "hstack", "vstack", "dstack", "column_stack"}

# Completion: lower precision as Intel's 2.1 release had it, norms in the dtype of their input, else promotion, for ops
# that refuse mixed dtypes.
COMPLETED_LOWER = {
    "nn.functional.scaled_dot_product_attention",
    "mm",
    "mv",
    "addmv",
    "addr",
    "addbmm",
    "linalg.multi_dot",
    "nn.functional.conv_transpose1d",
    "nn.functional.conv_transpose2d",
    "nn.functional.conv_transpose3d",
    "nn.functional.prelu",
}
COMPLETED_PROMOTE = {
    "_chunk_cat",
    "_unsafe_masked_index_put_accumulate",
    "allclose",
    "cartesian_prod",
    "cdist",
    "cross",
    "dot",
    "grid_sampler_2d",
    "grid_sampler_3d",
    "heaviside",
    "index_add",
    "index_copy",
    "index_put",
    "index_reduce.amax",
    "index_reduce.amin",
    "index_reduce.mean",
    "index_reduce.prod",
    "inner",
    "isclose",
    "lerp",
    "linalg.cross",
    "linalg.vecdot",
    "masked_scatter",
    "meshgrid.list_of_tensors",
    "meshgrid.variadic_tensors",
    "nn.functional.bilinear",
    "nn.functional.binary_cross_entropy",
    "nn.functional.embedding_bag",
    "nn.functional.grid_sample",
    "nn.functional.huber_loss",
    "nn.functional.mse_loss",
    "put",
    "scatter",
    "scatter_add",
    "scatter_reduce.amax",
    "scatter_reduce.amin",
    "scatter_reduce.mean",
    "scatter_reduce.prod",
    "scatter_reduce.sum",
    "tensordot",
    "vdot",
}
COMPLETED_FOLLOW = {
    "native_group_norm",
    "native_layer_norm",
    "nn.functional.group_norm",
    "nn.functional.layer_norm",
    "nn.functional.rms_norm",
}
ELIGIBLE = (torch.float32, torch.bfloat16, torch.float16)


def expected_outcome(name: str, call: Call, lower: torch.dtype) -> Any:
    """Return what a call of the named op gives in a region of dtype ``lower``, computed without autocast."""
    if name in DOCUMENTED_LOWER | COMPLETED_LOWER:
        return _with_inputs_in(call, lower)()
    if name in DOCUMENTED_FLOAT32:
        return _with_inputs_in(call, torch.float32)()
    if name in DOCUMENTED_PROMOTE | COMPLETED_PROMOTE:
        floating = {tensor.dtype for tensor in call.tensors() if tensor.is_floating_point()}
        alike = len(floating) == 1 or torch.float64 in floating or any(t.is_complex() for t in call.tensors())
        return call() if alike else _with_inputs_in(call, torch.float32)()
    if name in COMPLETED_FOLLOW:
        return _following_the_input(call)()
    return call()


def _following_the_input(call: Call) -> Call:
    """Return a norm's call with its parameters in the dtype of its input, but where CPUs read them as they are."""
    first, *parameters = call.tensors()
    bias_alone = any(weight is None and isinstance(bias, torch.Tensor) for weight, bias in pairwise(call.args))
    mixed = first.dtype in ELIGIBLE[1:] and {p.dtype for p in parameters} == {torch.float32}
    native = first.is_cpu and mixed and not bias_alone
    return call if native or first.dtype not in ELIGIBLE else _with_inputs_in(call, first.dtype)


def _with_inputs_in(call: Call, dtype: torch.dtype) -> Call:
    """Return the call with its eligible tensors in a dtype."""
    return call.mapped(lambda tensor: tensor.to(dtype) if tensor.dtype in ELIGIBLE else tensor)
