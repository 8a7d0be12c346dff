"""The names of the stand-in for ``intel_extension_for_pytorch``: what has a counterpart, and what to do else."""

from __future__ import annotations

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
}
_SELF = "intel_extension_for_pytorch"


def no_counterpart(name: str) -> NoCounterpartError:
    """Return the error of a name that the stand-in does not have."""
    instead = INSTEAD.get(name.split(".")[0], "see docs/migration.md of xpu_amp_dynamo")
    return NoCounterpartError(
        f"{_SELF}.{name} has no counterpart in xpu_amp_dynamo, whose stand-in for IPEX this is; {instead}. "
        f"It has {', '.join(LEGAL)}"
    )
