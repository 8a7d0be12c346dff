"""The names of the stand-in for ``intel_extension_for_pytorch``: what has a counterpart, and what to do else."""

from __future__ import annotations

from typing import NoReturn

from xpu_amp_dynamo.errors import NoCounterpartError

# IPEX's last release with an autocast of its own for GPUs.
VERSION = "2.1.40+xpu.amp.dynamo"
LEGAL = (
    "FP32MathMode",
    "__version__",
    "enable_auto_channels_last",
    "enable_onednn_fusion",
    "disable_auto_channels_last",
    "get_fp32_math_mode",
    "optimize",
    "set_fp32_math_mode",
    "xpu",
)
# What to do instead of what has no counterpart.
INSTEAD = {
    "cpu": "use PyTorch itself on CPUs, and torch.autocast('cpu')",
    "fp8": "use torchao.float8, or bfloat16 by torch.xpu.amp.autocast",
    "llm": "load the model with its own library, and use torch.compile(model, backend='xpu_amp')",
    "jit": "use torch.compile(model, backend='xpu_amp')",
    "nn": "use the modules of torch.nn; backend='xpu_amp' fuses what these fused",
    "optim": "use torch.optim, with fused=True where the optimizer has it",
    "optimize_transformers": "use torch.compile(model, backend='xpu_amp')",
    "quantization": "use torchao.quantization, or bfloat16 by torch.xpu.amp.autocast",
    "transformers": "use the models of the transformers library, and torch.compile(model, backend='xpu_amp')",
    "verbose": "set the environment variable ONEDNN_VERBOSE=1, or use torch.backends.mkldnn.verbose",
    "tpp": "use torch.compile(model, backend='xpu_amp')",
    "xpu": "torch.xpu.get_device_properties() tells what a device has",
}
_PROPERTIES = "use torch.xpu.get_device_properties()"
_LAYOUT = "leave it out: layouts are Inductor's, and those of the model"
# The same for names that IPEX gave to torch.xpu.
QUERIES = {
    "getDeviceIdListForCard": "set ZE_AFFINITY_MASK or ONEAPI_DEVICE_SELECTOR to choose devices",
    "has_2d_block_array": _PROPERTIES,
    "has_channels_last_1d": _LAYOUT,
    "has_fp64_dtype": f"{_PROPERTIES}.has_fp64",
    "has_multi_context": _PROPERTIES,
    "has_onemkl": "use torch.__config__.show()",
    "has_xmx": f"{_PROPERTIES}.has_subgroup_matrix_multiply_accumulate",
    "is_contiguous_channels_last_1d": _LAYOUT,
    "to_channels_last_1d": _LAYOUT,
    "utils": f"{_PROPERTIES}, such as has_fp64 for has_fp64_dtype()",
}
_SELF = "intel_extension_for_pytorch"


def refuse_query(name: str) -> NoReturn:
    """Refuse a name that ``torch.xpu`` does not have, with what to do instead if IPEX gave it one.

    Raises:
        NoCounterpartError: IPEX did.
        AttributeError: it did not.
    """
    if name not in QUERIES:
        raise AttributeError(f"module 'torch.xpu' has no attribute {name!r}")
    raise NoCounterpartError(
        f"torch.xpu.{name} of IPEX has no counterpart in PyTorch or xpu_amp_dynamo; {QUERIES[name]}"
    )


def no_counterpart(name: str) -> NoCounterpartError:
    """Return the error of a name that the stand-in does not have."""
    instead = INSTEAD.get(name.split(".")[0], "see docs/migration.md of xpu_amp_dynamo")
    return NoCounterpartError(
        f"{_SELF}.{name} has no counterpart in xpu_amp_dynamo, whose stand-in for IPEX this is; {instead}. "
        f"It has {', '.join(LEGAL)}"
    )
