"""Ops that do not care whether a value that was computed in a lower precision is widened in front of them.

Between listed ops a value may stay in the lower dtype through these alone, in programs whose dtypes capture recorded as
float32. Each has kernels for bfloat16 and float16 on CPUs, NVIDIA and Intel GPUs, gives elements that the lower dtype
holds as well as those that it was given, and computes inside in float32 where it adds up. Reductions, exponentials,
powers, logarithms, comparisons and linear algebra are not among them: in front of those a cast costs nothing, since
compilers fuse it, and keeps bits. Neither is what saturates, such as sigmoid, tanh and elu: programs take its distance
to 1, of which a rounded value keeps nothing.

Source: OpInfo's dtypes of torch 2.13.0 for CPU and CUDA, and ``native_functions.yaml`` of torch 2.15.0 for XPU.
"""

# Look at a tensor's sizes and not at its elements.
METADATA = (
    "dim",
    "is_contiguous",
    "is_floating_point",
    "ndimension",
    "numel",
    "size",
    "storage_offset",
    "stride",
    "sym_numel",
    "sym_size",
    "sym_storage_offset",
    "sym_stride",
)

# Give elements of their first argument another place. Other arguments are indices or only looked at for their sizes.
LAYOUT = (
    "_unsafe_view",
    "alias",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "broadcast_to",
    "chunk",
    "clone",
    "contiguous",
    "detach",
    "diag_embed",
    "diagonal",
    "dsplit",
    "expand",
    "expand_as",
    "flatten",
    "flip",
    "fliplr",
    "flipud",
    "gather",
    "getitem",
    "hsplit",
    "index_select",
    "lift_fresh",
    "movedim",
    "moveaxis",
    "narrow",
    "permute",
    "pixel_shuffle",
    "pixel_unshuffle",
    "ravel",
    "repeat",
    "repeat_interleave",
    "reshape",
    "reshape_as",
    "roll",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "take_along_dim",
    "tensor_split",
    "tile",
    "transpose",
    "tril",
    "triu",
    "unbind",
    "unflatten",
    "unfold",
    "unsqueeze",
    "view",
    "view_as",
    "vsplit",
)

# Convert to a dtype that the program names.
CONVERSIONS = (
    "_to_copy",
    "bfloat16",
    "bool",
    "double",
    "float",
    "half",
    "int",
    "long",
    "to",
    "type",
)

# Compute each element from the elements at its place and from numbers, of about their magnitude.
POINTWISE = (
    "abs",
    "alpha_dropout",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_dropout",
    "gelu",
    "glu",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "log_sigmoid",
    "masked_fill",
    "maximum",
    "minimum",
    "mish",
    "native_dropout",
    "neg",
    "negative",
    "positive",
    "prelu",
    "relu",
    "relu6",
    "silu",
    "softplus",
    "tanhshrink",
    "threshold",
    "where",
)

# Compute each element from the elements at its place, of another magnitude. Safe in bfloat16 alone, whose range is that
# of float32: products of float16 overflow where a float32 program is far from it.
ARITHMETIC = (
    "add",
    "div",
    "mul",
    "multiply",
    "rsub",
    "sub",
    "subtract",
)

# Normalise their first argument; parameters and statistics may be float32 beside it.
NORMALISATION = (
    "batch_norm",
    "instance_norm",
)

# Take the largest or the average of neighbours, or copy or interpolate them.
NEIGHBOURHOOD = (
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "interpolate",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "pad",
    "upsample",
    "upsample_bilinear",
    "upsample_bilinear2d",
    "upsample_nearest",
    "upsample_nearest2d",
)

# Join tensors.
JOINS = (
    "cat",
    "column_stack",
    "dstack",
    "hstack",
    "stack",
    "vstack",
)
