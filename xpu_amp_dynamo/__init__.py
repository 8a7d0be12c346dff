"""Automatic mixed precision for Intel GPUs: ``torch.compile(model, backend="xpu_amp")`` and ``autocast``."""

from xpu_amp_dynamo.backend import lower as lower
from xpu_amp_dynamo.backend import xpu_amp as xpu_amp
from xpu_amp_dynamo.devices import default_device_type as default_device_type
from xpu_amp_dynamo.exported import lower_exported as lower_exported
from xpu_amp_dynamo.lowering.report import LoweringReport as LoweringReport
from xpu_amp_dynamo.options import BackendOptions as BackendOptions
from xpu_amp_dynamo.policy import Policy as Policy
from xpu_amp_dynamo.reports import record_lowerings as record_lowerings
from xpu_amp_dynamo.runtime.autocast import autocast as autocast
from xpu_amp_dynamo.runtime.installation import install as install
from xpu_amp_dynamo.runtime.installation import installed_policy as installed_policy
from xpu_amp_dynamo.runtime.installation import uninstall as uninstall
from xpu_amp_dynamo.runtime.weight_store import cached_weight_bytes as cached_weight_bytes
from xpu_amp_dynamo.runtime.weight_store import refresh_weights as refresh_weights
from xpu_amp_dynamo.simulator.simulated_xpu import simulated_xpu as simulated_xpu
from xpu_amp_dynamo.simulator.xpu_kernels import xpu_kernels as xpu_kernels

__version__ = "0.1.0"
