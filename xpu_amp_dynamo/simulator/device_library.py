"""Builds the device library on first use and loads it. Checked on torch 2.13.0."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
from pathlib import Path

import torch
from torch.utils._filelock import FileLock

from xpu_amp_dynamo.errors import SimulatorError

SOURCES = Path(__file__).parent / "device"


@functools.cache
def load_device_library() -> None:
    """Make the simulated device known to PyTorch, switched off; build its library if that was not done yet.

    Raises:
        SimulatorError: there is no working C++ compiler, this torch has ops of other signatures, or there is no folder
            that can be written to.
    """
    library = ctypes.CDLL(str(_built_library()))
    register = library.register_simulated_xpu
    register.restype = ctypes.c_char_p
    error = register()
    if error is not None:
        raise SimulatorError(
            f"the simulated XPU does not fit torch {torch.__version__}; it was checked on 2.13.0:\n{error.decode()}"
        )


def set_device_active(active: bool) -> None:
    """Switch the simulated device on or off."""
    torch.ops.simulated_xpu.set_active(active)


def cache_folder() -> Path:
    """Return the folder of built libraries, ``$XDG_CACHE_HOME/xpu_amp_dynamo`` or ``~/.cache/xpu_amp_dynamo``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xpu_amp_dynamo"


def make_folder(folder: Path) -> None:
    """Make a folder for what is kept, if it is not there.

    Raises:
        SimulatorError: it cannot be made, or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"may not write to {folder}")
    except OSError as error:
        raise SimulatorError(
            f"the simulated XPU keeps what it compiles in {cache_folder()}, which cannot be used: {error}; name "
            "another folder in the environment variable XDG_CACHE_HOME"
        ) from error


def _built_library() -> Path:
    """Return the library's path, built for this torch and these sources."""
    files = sorted(SOURCES.iterdir())
    key = hashlib.sha256("".join([torch.__version__, platform.machine(), *map(Path.read_text, files)]).encode())
    name = f"simulated_xpu-torch{torch.__version__}-{key.hexdigest()[:16]}"
    target = cache_folder() / f"{name}.so"
    make_folder(target.parent)
    with FileLock(str(target.with_suffix(".lock"))):
        if not target.exists():
            _build(target)
    return target


def _build(target: Path) -> None:
    """Compile the sources, with the compiler and flags that Inductor uses for C++."""
    from torch._inductor import cpp_builder, exc

    partial = target.with_name(f"{target.stem}-partial")
    try:
        options = cpp_builder.CppTorchOptions(include_pytorch=True, warning_all=False, min_optimize=True)
        builder = cpp_builder.CppBuilder(partial.name, str(SOURCES / "library.cpp"), options, str(target.parent))
        builder.build()
    except exc.InvalidCxxCompiler as error:
        raise SimulatorError(
            "the simulated XPU needs a C++ compiler, the same that Inductor needs for CPU code, and found none: "
            "install g++, or name one in the environment variable CXX"
        ) from error
    except exc.CppCompileError as error:
        raise SimulatorError(f"the device library does not compile with torch {torch.__version__}: {error}") from error
    os.replace(builder.get_target_file_path(), target)
