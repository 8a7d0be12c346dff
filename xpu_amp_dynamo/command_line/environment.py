"""What of this machine and this environment matters to the backend, and the fix for what is wrong."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from xpu_amp_dynamo.compat.torch_version import checked_versions, support
from xpu_amp_dynamo.environment_options import VARIABLE, environment_options
from xpu_amp_dynamo.errors import XpuAmpError
from xpu_amp_dynamo.inductor.host_compiler import host_compiler
from xpu_amp_dynamo.simulator.intel_compiler import triton_xpu
from xpu_amp_dynamo.simulator.intel_compiler.ocloc import find_ocloc, ocloc_version
from xpu_amp_dynamo.simulator.opencl.device import context
from xpu_amp_dynamo.simulator.refusal import intel_gpus

IPEX = "intel_extension_for_pytorch"
SUPPORT = {
    "full": "supported in full",
    "reduced": "supported with less: no exact precision on the CPU, no grouping of mixed sizes",
    "newer": "newer than all that was tried: it may fail or be slower",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: what it is.
        present: whether it is there and as it should be.
        detail: what was found.
        fix: what to do, mostly a command; empty where nothing has to be done.
        optional: whether the backend runs without it.
    """

    name: str
    present: bool
    detail: str
    fix: str = ""
    optional: bool = True


def examine() -> list[Finding]:
    """Look at everything that matters to the backend."""
    return [*_versions(), *_devices(), *_tools(), *_simulation(), _ipex(), *_options()]


def torch_build() -> str:
    """Return for which kind of device this build of torch is, besides the CPU."""
    if torch.version.xpu is not None:
        return "XPU"
    return "CUDA" if torch.backends.cuda.is_built() else "CPU"


def _versions() -> Iterator[Finding]:
    yield Finding("Python", True, f"{platform.python_version()} on {platform.platform()}")
    kind = support()
    fix = f"install a torch of {checked_versions()}, or look for a newer xpu_amp_dynamo" if kind == "newer" else ""
    detail = f"{torch.__version__}, a build for {torch_build()}; {SUPPORT[kind]}; tried were {checked_versions()}"
    yield Finding("torch", kind != "newer", detail, fix)


def _devices() -> Iterator[Finding]:
    yield _xpu()
    if torch.backends.cuda.is_built():
        there = torch.cuda.is_available()
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding("cuda", there, ", ".join(names) or "no device", "" if there else "install NVIDIA's driver")
    yield Finding("cpu", True, f"{platform.machine()}, {torch.get_num_threads()} threads")


def _xpu() -> Finding:
    """Look for an Intel GPU, and for what keeps torch from seeing it."""
    if torch.xpu.is_available():
        return Finding("xpu", True, ", ".join(map(torch.xpu.get_device_name, range(torch.xpu.device_count()))))
    if torch_build() == "XPU":
        fix = "install Intel's GPU driver (dgpu-docs.intel.com), then `sudo usermod -aG render $USER` and log in again"
        return Finding("xpu", False, "a build for XPUs that sees none", fix)
    gpus = intel_gpus()
    if not gpus:
        return Finding("xpu", False, "no Intel GPU")
    version = torch.__version__.partition("+")[0]
    fix = f"pip install --force-reinstall torch=={version} --index-url https://download.pytorch.org/whl/xpu"
    return Finding("xpu", False, f"an Intel GPU at PCI {', '.join(gpus)}, and torch is no build for it", fix)


def _tools() -> Iterator[Finding]:
    on_gpu = torch.accelerator.current_accelerator(check_available=True) is not None
    fix = f'pip install "torch=={torch.__version__}" with the index it came from' if on_gpu else "pip install triton"
    yield _package("Triton", "triton", fix, optional=not on_gpu)
    compiler = host_compiler()
    fix = "" if compiler else "sudo apt-get install g++, or name a compiler in the environment variable CXX"
    yield Finding("C++ compiler", compiler is not None, compiler or "not found", fix, optional=False)
    header = Path(sysconfig.get_path("include"), "Python.h")
    version = ".".join(map(str, sys.version_info[:2]))
    fix = "" if header.exists() else f"sudo apt-get install python{version}-dev"
    yield Finding("Python headers", header.exists(), str(header.parent), fix, optional=False)


def _simulation() -> Iterator[Finding]:
    """Look at what only the simulated XPU and reports of kernels use."""
    yield _tried("ocloc", _ocloc)
    yield _tried("Intel's compiler", lambda: str(triton_xpu.installed_folder()))
    yield _tried("OpenCL runtime", lambda: ", ".join(device.name for device in context().devices))


def _ocloc() -> str:
    ocloc = find_ocloc()
    if ocloc is None:
        raise XpuAmpError("not found; sudo apt-get install intel-ocloc, or name it in the environment variable OCLOC")
    return f"{ocloc}, {ocloc_version(ocloc)}"


def _ipex() -> Finding:
    """Look for Intel's extension, which is archived and brings kernels and an autocast of its own."""
    if importlib.util.find_spec(IPEX) is None:
        return Finding("IPEX", True, "not in this environment, as it should be")
    fix = "pip uninstall intel-extension-for-pytorch; policy='ipex' is what it did"
    return Finding("IPEX", False, "in this environment; it is archived and fits no torch that is supported here", fix)


def _options() -> Iterator[Finding]:
    """Look at the options that all compilation here takes from the environment, if it has any."""
    if VARIABLE in os.environ:
        yield _tried(VARIABLE, lambda: str(environment_options()))


def _package(name: str, module: str, fix: str, *, optional: bool) -> Finding:
    """Look for a Python package."""
    if importlib.util.find_spec(module) is None:
        return Finding(name, False, "not installed", fix, optional)
    packages = importlib.metadata.packages_distributions().get(module, [])
    detail = ", ".join(sorted({f"{package} {importlib.metadata.version(package)}" for package in packages}))
    return Finding(name, True, detail or "installed", optional=optional)


def _tried(name: str, find: Callable[[], str]) -> Finding:
    """Look for what says itself how it is to be had."""
    try:
        return Finding(name, True, find())
    except XpuAmpError as error:
        detail, _, fix = str(error).partition("; ")
        return Finding(name, False, detail if fix else "see below", fix or detail)
