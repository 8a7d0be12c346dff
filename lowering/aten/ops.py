"""The ATen ops that the cast optimiser knows."""

import torch
from torch.torch_version import TorchVersion

aten = torch.ops.aten
CAST = torch.ops.prims.convert_element_type.default

# Ops that give their first argument's memory another shape.
VIEWS = frozenset(
    (
        aten.alias.default,
        aten.expand.default,
        aten.permute.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.t.default,
        aten.transpose.int,
        aten.unsqueeze.default,
        aten.view.default,
    )
)
# The same, for ops that return several tensors.
SPLITS = frozenset(
    (
        aten.chunk.default,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.unbind.int,
    )
)
# The same where the argument is contiguous, else copies.
RESHAPES = frozenset((aten._unsafe_view.default, aten.reshape.default))
# Ops that give their first argument's values another place, in memory of their own.
COPIES = frozenset(
    (
        aten._unsafe_index.Tensor,
        aten.clone.default,
        aten.flip.default,
        aten.gather.default,
        aten.index.Tensor,
        aten.index_select.default,
        aten.repeat.default,
    )
)
LAYOUT_OPS = VIEWS | RESHAPES | COPIES
CONCATENATION = aten.cat.default
# Ops whose results depend on where their argument's elements lie in memory.
LAYOUT_READERS = frozenset(
    (
        aten.as_strided.default,
        aten.as_strided_copy.default,
        aten.as_strided_scatter.default,
        aten.is_contiguous.default,
        aten.is_contiguous.memory_format,
        aten.is_non_overlapping_and_dense.default,
        aten.is_strides_like_format.default,
        aten.stride.default,
        aten.storage_offset.default,
        aten.sym_is_contiguous.default,
        aten.sym_storage_offset.default,
        aten.sym_stride.default,
        aten.sym_stride.int,
    )
)

CONVOLUTIONS = frozenset((aten.convolution.default, aten.convolution_backward.default))
# Calls of libraries, which fuse neither what comes before them nor what comes after.
LIBRARY_CALLS = CONVOLUTIONS | frozenset(
    (
        aten.mm.default,
        aten.bmm.default,
        aten.addmm.default,
        aten.baddbmm.default,
        aten.mm.dtype,
        aten.bmm.dtype,
        aten.addmm.dtype,
        aten._scaled_dot_product_fused_attention_overrideable.default,
        aten._scaled_dot_product_fused_attention_overrideable_backward.default,
    )
)
GPU_DEVICE_TYPES = ("xpu", "cuda")
# Products, and the form of each that reads a lower dtype and writes float32. torch 2.12 cannot run that of the last on
# fake tensors: it decomposes it with the dtype as a factor.
WIDENING = {
    aten.mm.default: aten.mm.dtype,
    aten.bmm.default: aten.bmm.dtype,
    **({aten.addmm.default: aten.addmm.dtype} if TorchVersion(torch.__version__) >= "2.13" else {}),
}
