"""What ops of ATen do that their schemas do not say, and that no policy may undo by a cast.

Source: ``aten/src/ATen/native/native_functions.yaml`` of torch 2.13.0, and the functions that it names.
"""

_STATISTICS = ("running_mean", "running_var")

# Arguments that an op writes to though its schema marks them as read only.
WRITTEN_ARGUMENTS = {
    "_batch_norm_impl_index": _STATISTICS,
    "batch_norm": _STATISTICS,
    "batch_norm_gather_stats": _STATISTICS,
    "batch_norm_gather_stats_with_counts": _STATISTICS,
    "batch_norm_update_stats": _STATISTICS,
    "cudnn_batch_norm": _STATISTICS,
    "instance_norm": _STATISTICS,
    "miopen_batch_norm": _STATISTICS,
    "native_batch_norm": _STATISTICS,
}

# The argument that turns these writes on, where it is not `training`.
WRITTEN_IF = {"instance_norm": "use_input_stats"}
# Functions that renormalise one of their arguments in place if another is given.
RENORMALISED = {"embedding": ("weight", "max_norm"), "embedding_bag": ("weight", "max_norm")}

# Ops that return their input or a view of it, with no alias in the schema.
VIEWS = ("atleast_1d", "atleast_2d", "atleast_3d", "broadcast_tensors", "data")

# Casts that return new memory; those that may return their input are views by their schemas.
CASTS = (
    "_cast_Byte",
    "_cast_Char",
    "_cast_Double",
    "_cast_Float",
    "_cast_Half",
    "_cast_Int",
    "_cast_Long",
    "_cast_Short",
    "_to_copy",
    "type_as",
)
