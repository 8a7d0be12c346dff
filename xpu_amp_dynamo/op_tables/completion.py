"""Ops that the documentation does not name and that a region must still cover.

Each of them runs on float32 and on bfloat16 tensors, and raises on the mixture of both that the documented
lists produce. Lower precision where Intel Extension for PyTorch 2.1 registered it so, else promote.
"""

LOWER_PRECISION = (
    "scaled_dot_product_attention",
    "mm",
    "mv",
    "addmv",
    "addr",
    "addbmm",
    "chain_matmul",
    "linalg_multi_dot",
    "conv_tbc",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "prelu",
    "_addmm_activation",
    "_native_multi_head_attention",
    "_transformer_encoder_layer_fwd",
)

PROMOTE = (
    "dot",
    "vdot",
    "grid_sampler",
    "index_put",
    "scatter_add",
    "tensordot",
)
