"""Automatic mixed precision for Intel GPUs: ``torch.compile(model, backend="xpu_amp")`` and ``autocast``."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpu_amp_dynamo.backend import lower, xpu_amp
    from xpu_amp_dynamo.configured import ConfiguredBackend, backend_with
    from xpu_amp_dynamo.explanation.explain import explain
    from xpu_amp_dynamo.explanation.explanation import Explanation
    from xpu_amp_dynamo.exported import lower_exported
    from xpu_amp_dynamo.ipex.installation import install_torch_xpu_amp, uninstall_torch_xpu_amp
    from xpu_amp_dynamo.lowering.report import LoweringReport, record_lowerings
    from xpu_amp_dynamo.options import BackendOptions, ExportOptions, LoweringOptions
    from xpu_amp_dynamo.policy.devices import default_device_type
    from xpu_amp_dynamo.policy.policy import Policy
    from xpu_amp_dynamo.runtime.autocast import autocast
    from xpu_amp_dynamo.runtime.installation import install, installed_policy, uninstall
    from xpu_amp_dynamo.runtime.keep_precision import keep_precision
    from xpu_amp_dynamo.runtime.weight_store import cached_weight_bytes, refresh_weights, release_weights
    from xpu_amp_dynamo.simulator.simulated_xpu import simulated_xpu
    from xpu_amp_dynamo.simulator.xpu_kernels import xpu_kernels
    from xpu_amp_dynamo.tuning.tune import tune
    from xpu_amp_dynamo.tuning.tuning import Tuning

__version__ = "0.1.0"
__all__ = [
    "BackendOptions",
    "ConfiguredBackend",
    "Explanation",
    "ExportOptions",
    "LoweringOptions",
    "LoweringReport",
    "Policy",
    "Tuning",
    "autocast",
    "backend_with",
    "cached_weight_bytes",
    "default_device_type",
    "explain",
    "install",
    "install_torch_xpu_amp",
    "installed_policy",
    "keep_precision",
    "lower",
    "lower_exported",
    "record_lowerings",
    "refresh_weights",
    "release_weights",
    "simulated_xpu",
    "tune",
    "uninstall",
    "uninstall_torch_xpu_amp",
    "xpu_amp",
    "xpu_kernels",
]
# The module of each public name. It is loaded when the name is first used: all of them load PyTorch, which takes
# seconds, and the command line has to print its help at once.
_LATE = {
    "BackendOptions": "options",
    "ConfiguredBackend": "configured",
    "Explanation": "explanation.explanation",
    "ExportOptions": "options",
    "LoweringOptions": "options",
    "LoweringReport": "lowering.report",
    "Policy": "policy.policy",
    "Tuning": "tuning.tuning",
    "autocast": "runtime.autocast",
    "backend_with": "configured",
    "cached_weight_bytes": "runtime.weight_store",
    "default_device_type": "policy.devices",
    "explain": "explanation.explain",
    "install": "runtime.installation",
    "install_torch_xpu_amp": "ipex.installation",
    "installed_policy": "runtime.installation",
    "keep_precision": "runtime.keep_precision",
    "lower": "backend",
    "lower_exported": "exported",
    "record_lowerings": "lowering.report",
    "refresh_weights": "runtime.weight_store",
    "release_weights": "runtime.weight_store",
    "simulated_xpu": "simulator.simulated_xpu",
    "tune": "tuning.tune",
    "uninstall": "runtime.installation",
    "uninstall_torch_xpu_amp": "ipex.installation",
    "xpu_amp": "backend",
    "xpu_kernels": "simulator.xpu_kernels",
}


# Type checkers take a module that has one to have all names, misspelt ones too.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
