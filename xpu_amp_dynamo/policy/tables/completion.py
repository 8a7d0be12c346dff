"""Ops that the documentation does not name and that a region must still cover.

Each of them runs on float32 and on bfloat16 tensors, and raises on the mixture of both that the documented
lists produce: forward or backward, on some device and in some version of PyTorch. Lower precision where Intel
Extension for PyTorch 2.1 registered it so; norms follow their input; else promote.
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

# Norms give the dtype of their input, as ops do that the documentation does not name: their parameters are cast to it
# where kernels refuse the mixture. Batch and instance norm take it on every device and need no entry.
FOLLOW = (
    "_fused_rms_norm",
    "group_norm",
    "layer_norm",
    "native_group_norm",
    "native_layer_norm",
    "rms_norm",
)

PROMOTE = (
    "_chunk_cat",
    "_embedding_bag",
    "_thnn_fused_gru_cell",
    "_thnn_fused_lstm_cell",
    "_unsafe_masked_index_put_accumulate",
    "allclose",
    "bilinear",
    "binary_cross_entropy",
    "cartesian_prod",
    "cdist",
    "cross",
    "dot",
    "embedding_bag",
    "grid_sampler",
    "grid_sampler_2d",
    "grid_sampler_3d",
    "heaviside",
    "huber_loss",
    "index_add",
    "index_copy",
    "index_put",
    "index_reduce",
    "isclose",
    "lerp",
    "linalg_cross",
    "linalg_vecdot",
    "masked_scatter",
    "meshgrid",
    "mse_loss",
    "put",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "tensordot",
    "vdot",
)
