"""``simulated_xpu``: an XPU in host memory for as long as a region lasts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from unittest import mock

import torch

from xpu_amp_dynamo.errors import SimulatorError
from xpu_amp_dynamo.runtime.installation import keeping_installed_policy
from xpu_amp_dynamo.simulator.bindings import simulate_bindings
from xpu_amp_dynamo.simulator.device_library import load_device_library, set_device_active
from xpu_amp_dynamo.simulator.intel_compiler import triton_xpu
from xpu_amp_dynamo.simulator.parts import PARTS, XpuProperties
from xpu_amp_dynamo.simulator.refusal import refuse_beside_real_xpu
from xpu_amp_dynamo.simulator.requirements import triton_is_missing

MODES = ("run", "opencl", "inspect")

# The simulated device belongs to the whole process.
_one_region = threading.Lock()


@contextlib.contextmanager
def simulated_xpu(part: str = "max-1550", mode: str = "run") -> Iterator[XpuProperties]:
    """Give this process an XPU in host memory while the region lasts.

    ``torch.xpu.is_available()``, ``device="xpu"``, modules, autograd, optimizers, random numbers, regions of
    ``torch.autocast("xpu")`` and ``torch.compile`` work as with an XPU build of PyTorch: eager ops run by their CPU
    kernels, compiled code is Inductor's real XPU code. Nothing about speed can be learned here, and results are
    those of CPU arithmetic.

    Args:
        part: the GPU whose properties the device has: ``"max-1550"``, ``"arc-b580"`` or ``"arc-a770"``.
        mode: ``"run"`` runs compiled kernels by Triton's interpreter; ``"opencl"`` compiles them with Intel's compiler
            and runs them by its OpenCL runtime for CPUs, some thousand times faster; ``"inspect"`` generates them and
            leaves them out, so that compiled code returns zeros of the right shapes and dtypes.

    Yields:
        The properties of the device, as ``torch.xpu.get_device_properties()`` gives them.

    Raises:
        SimulatorError: the part or the mode is unknown, a simulated XPU is on already, this is no CPU build of
            torch, this machine has a real XPU, there is no C++ compiler, or what ``mode="opencl"`` needs is not
            installed or cannot be on this machine. Compiling raises where Triton is not installed.

    Example:
        >>> with xpu_amp_dynamo.simulated_xpu():
        ...     model = torch.compile(torch.nn.Linear(8, 8).to("xpu"), backend="xpu_amp")
        ...     model(torch.randn(2, 8, device="xpu")).sum().backward()
    """
    properties = _checked(part, mode)
    if not _one_region.acquire(blocking=False):
        raise SimulatorError("a simulated XPU is on already; regions of simulated_xpu cannot be nested")
    with contextlib.ExitStack() as stack:
        stack.callback(_one_region.release)
        set_device_active(True)
        stack.callback(set_device_active, False)
        stack.enter_context(keeping_installed_policy("xpu"))
        simulate_bindings(stack, properties)
        torch.xpu.init()
        _simulate_compilation(stack, mode)
        stack.callback(torch._dynamo.reset)
        yield properties


def _checked(part: str, mode: str) -> XpuProperties:
    """Return the part's properties once everything that could go wrong has been looked at."""
    if part not in PARTS:
        raise SimulatorError(f"there is no part {part!r} to simulate; the parts are {sorted(PARTS)}")
    if mode not in MODES:
        raise SimulatorError(f"there is no mode {mode!r}; the modes are {list(MODES)}")
    if mode == "opencl":
        from xpu_amp_dynamo.simulator.opencl.device import queue

        queue()
        triton_xpu.installed_folder()
    if not load_device_library.cache_info().currsize:
        refuse_beside_real_xpu()
        load_device_library()
    return PARTS[part]


def _simulate_compilation(stack: contextlib.ExitStack, mode: str) -> None:
    """Let ``torch.compile`` make XPU code and run it, or leave its kernels out."""
    # Imported before anything is patched: Inductor decides some things once, when it is imported.
    import torch._inductor.scheduler
    from torch.utils._triton import has_triton_package

    from xpu_amp_dynamo.simulator.inductor_support import simulate_inductor_support
    from xpu_amp_dynamo.simulator.interpreter import simulate_triton
    from xpu_amp_dynamo.simulator.skip_kernels import skip_kernels

    simulate_inductor_support(stack)
    if has_triton_package():
        simulate_triton(stack)
    else:
        stack.enter_context(mock.patch.object(torch._inductor.scheduler, "TritonMissing", triton_is_missing))
    if mode == "inspect":
        skip_kernels(stack)
    elif mode == "opencl":
        from xpu_amp_dynamo.simulator.opencl.run_kernels import run_kernels_by_opencl

        run_kernels_by_opencl(stack)
