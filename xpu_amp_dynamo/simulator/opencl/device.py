"""Intel's OpenCL runtime for CPUs: loads it and builds programs for it. Checked on intel-opencl-rt 2026.2."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from xpu_amp_dynamo.errors import SimulatorError
from xpu_amp_dynamo.simulator.requirements import is_missing

RUNTIME, LIBRARIES = "intel-opencl-rt", "intel-cmplr-lib-rt"
DRIVER = "libintelocl.so"
# Functions of mathematics that compiled programs call.
PRELOADED = ("libintlc.so.5", "libimf.so", "libirng.so", "libsvml.so")


@functools.cache
def pyopencl() -> ModuleType:
    """Import the bindings of OpenCL, with Intel's runtime for CPUs as the platform that they find.

    Raises:
        SimulatorError: the bindings or the runtime are not installed.
    """
    driver = _library(RUNTIME, DRIVER)
    for name in PRELOADED:
        ctypes.CDLL(str(_library(LIBRARIES, name)), ctypes.RTLD_GLOBAL)
    # The wheel's own file for loaders names a folder of the machine on which it was made.
    with mock.patch.dict(os.environ, {"OCL_ICD_VENDORS": str(driver), "PYOPENCL_NO_CACHE": "1"}):
        try:
            bindings = importlib.import_module("pyopencl")
            bindings.get_platforms()
        except ImportError as error:
            raise is_missing('mode="opencl"', "pyopencl", "opencl") from error
    return bindings


def _library(package: str, name: str) -> Path:
    """Return the path of a library that a package of Intel's installed."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise is_missing('mode="opencl"', package, "opencl") from error
    found = [Path(str(file.locate())).resolve() for file in files if file.name == name]
    if not found or not found[0].exists():
        raise SimulatorError(f"{package} is installed without {name}: `pip install --force-reinstall {package}`")
    return found[0]


@functools.cache
def context() -> Any:
    """Return the OpenCL context of this processor.

    Raises:
        SimulatorError: the runtime is not installed, or does not support this processor.
    """
    cl = pyopencl()
    platforms = [p for p in cl.get_platforms() if "Intel" in p.vendor]
    devices = [d for platform in platforms for d in platform.get_devices() if d.type & cl.device_type.CPU]
    if not devices:
        raise SimulatorError('Intel\'s OpenCL runtime does not support this processor; use simulated_xpu(mode="run")')
    return cl.Context(devices[:1])


@functools.cache
def queue() -> Any:
    """Return the queue on which all kernels of this process run."""
    return pyopencl().CommandQueue(context())


def device_key() -> str:
    """Return what programs that were built for this processor depend on, besides their code."""
    device = context().devices[0]
    return f"{device.name} {device.driver_version}"


def build_program(spirv: bytes) -> bytes:
    """Build a program for this processor and return its binary.

    Args:
        spirv: a module with one kernel.
    """
    cl = pyopencl()
    return _built(cl.Program(context(), spirv)).get_info(cl.program_info.BINARIES)[0]


def load_kernel(program: bytes, name: str) -> Any:
    """Return a kernel of a program that :func:`build_program` built."""
    cl = pyopencl()
    return cl.Kernel(_built(cl.Program(context(), context().devices, [program])), name)


def _built(program: Any) -> Any:
    """Build a program without the warning that the compiler said something, which is that it is done."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyopencl().CompilerWarning)
        return program.build()
