"""Triton for XPUs, in a folder of its own: it takes the name ``triton``, which the Triton of this environment has."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

from xpu_amp_dynamo.errors import SimulatorError
from xpu_amp_dynamo.simulator.device_library import cache_folder

# The newest on PyPI (November 2026), where there are only pre-releases.
VERSION = "3.3.0b1"
PYTHONS = ((3, 10), (3, 11), (3, 12))
INSTALL_COMMAND = "python -m xpu_amp_dynamo install-compiler"


def refuse_elsewhere() -> None:
    """Raise unless there are packages of Intel's compiler for this machine.

    Raises:
        SimulatorError: this is not Linux on x86-64, or another Python than CPython 3.10 to 3.12.
    """
    machine, version = (sys.platform, platform.machine()), sys.version_info[:2]
    if machine != ("linux", "x86_64"):
        raise SimulatorError(
            f"Triton for XPUs {VERSION} exists for Linux on x86-64 only, and this is {' on '.join(machine)}"
        )
    if platform.python_implementation() != "CPython" or version not in PYTHONS:
        raise SimulatorError(
            f"Triton for XPUs {VERSION} exists for CPython 3.10 to 3.12 only, and this is "
            f"{platform.python_implementation()} {'.'.join(map(str, version))}; make an environment with one of those"
        )


def folder() -> Path:
    """Return the folder for Triton for XPUs, whether it is there or not."""
    major, minor = sys.version_info[:2]
    return cache_folder() / f"triton-xpu-{VERSION}-cp{major}{minor}"


def installed_folder() -> Path:
    """Return the folder in which Triton for XPUs is installed.

    Raises:
        SimulatorError: it is not installed, or cannot be on this machine.
    """
    refuse_elsewhere()
    if not folder().is_dir():
        raise SimulatorError(
            f"Intel's kernel compiler, Triton for XPUs {VERSION}, is not installed: run `{INSTALL_COMMAND}` once, "
            f"which puts it into {folder()} (650 MB), beside the Triton of this environment"
        )
    return folder()


def install() -> Path:
    """Install Triton for XPUs by pip, unless it is there, and return its folder.

    Raises:
        SimulatorError: pip could not install it, or it cannot be on this machine.
    """
    refuse_elsewhere()
    target = folder()
    if target.is_dir():
        return target
    partial = target.with_name(f"{target.name}-partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = ["pip", "install", "--quiet", "--no-deps", "--pre", "--target", str(partial), f"triton-xpu=={VERSION}"]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        raise SimulatorError(f"`{' '.join(command)}` failed, so there is no Triton for XPUs:\n{done.stderr.strip()}")
    partial.rename(target)
    return target
