"""Norms whose kernels read float32 parameters beside an input in lower precision, forward and backward.

They compute in float32 and give the dtype of the input. Kernels for GPUs of layer and group norm read all in one dtype,
and RMS norm has a fused kernel only for that.

Source: runs on a CPU with bfloat16 and float16, torch 2.13.0.
"""

_BATCH_NORMS = ("batch_norm", "instance_norm", "native_batch_norm")
_OTHERS = ("_fused_rms_norm", "group_norm", "layer_norm", "native_group_norm", "native_layer_norm", "rms_norm")

# By device type.
MIXED_PARAMETERS = {"any": _BATCH_NORMS, "cpu": _OTHERS}
