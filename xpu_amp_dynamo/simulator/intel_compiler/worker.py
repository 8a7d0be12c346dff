"""Compiles kernels in a process of its own, in which ``triton`` is Triton for XPUs.

It takes pickled :class:`KernelSource` from its input and writes lists of pickled :class:`CompiledKernel`, or a
:class:`FailedKernel`, to its output. Checked on torch 2.13.0 and 2.15.0 with Triton for XPUs 3.3.0b1.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import select
import sys
import tempfile
import time
import traceback
import types
from pathlib import Path
from typing import Any, BinaryIO

import triton
from torch._inductor.runtime import triton_helpers
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from triton.backends.compiler import GPUTarget

from xpu_amp_dynamo.simulator.intel_compiler.compiled_kernel import CompiledKernel, FailedKernel, KernelSource
from xpu_amp_dynamo.simulator.intel_compiler.spirv import for_cpu

# Architecture numbers of SYCL and what Triton calls them, which a C++ module built against SYCL's headers tells it.
ARCHITECTURES = {0x30F000700: "pvc", 0x500400400: "bmg", 0x30DC00800: "dg2"}
# Instructions of GPUs that the runtime for CPUs does not know; without them Triton writes others.
GPU_FEATURES = (
    "has_subgroup_2d_block_io",
    "has_subgroup_matrix_multiply_accumulate",
    "has_subgroup_matrix_multiply_accumulate_tensor_float32",
)
# An option that Inductor sets for later Tritons.
UNKNOWN_OPTIONS = ("generate_native_code",)
# The type of what becomes part of the code.
CONSTANT = "constexpr"
MESSAGE_LENGTH = 2000
# A process takes half a gigabyte.
IDLE_SECONDS = 120


def main() -> None:
    """Compile what comes in until there is no more, or nothing comes for a while."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What compilers print goes where errors go.
    _do_without_a_gpu()
    while (source := _next(requests)) is not None:
        pickle.dump(_compile(source), answers)
        answers.flush()


def _do_without_a_gpu() -> None:
    """Let Triton for XPUs compile where there is no driver."""
    triton_helpers.set_driver_to_gpu = lambda: None
    make_backend = triton.backends.backends["intel"].compiler.__init__.__globals__
    parser = types.SimpleNamespace(parse_device_arch=lambda number: ARCHITECTURES.get(number, ""))
    make_backend["compile_module_from_src"] = lambda source, name: parser


def _next(requests: BinaryIO) -> KernelSource | None:
    ready, _, _ = select.select([requests], [], [], IDLE_SECONDS)
    try:
        return pickle.load(requests) if ready else None
    except EOFError:
        return None


def _compile(source: KernelSource) -> list[CompiledKernel] | FailedKernel:
    """Compile a kernel with its configurations."""
    try:
        kernel = _load(source)
        one = source.configuration
        configurations = kernel.configs if one is None else [kernel.configs[one]]
        return [_compile_one(kernel, configuration, source) for configuration in configurations]
    except Exception as error:  # Goes to the process that asked, as text: exceptions of compilers do not pickle.
        said = "".join(traceback.format_exception_only(error)).strip()
        return FailedKernel(source.name, said[-MESSAGE_LENGTH:])


def _load(source: KernelSource) -> CachingAutotuner:
    """Import the module of a kernel and return the kernel. Triton reads the code again, so it stays on disk."""
    file = Path(tempfile.mkdtemp(dir=os.environ["KERNEL_SOURCES"])) / f"{source.name[:100]}.py"
    file.write_text(source.code)
    spec = importlib.util.spec_from_file_location(file.parent.name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, source.name)


def _compile_one(kernel: CachingAutotuner, configuration: Any, source: KernelSource) -> CompiledKernel:
    start = time.perf_counter()
    meta = kernel._create_compile_meta(configuration)
    options = kernel._create_compile_options(configuration, meta)
    properties = dict(meta["cc"])
    if source.architecture is not None:
        properties["architecture"] = source.architecture
    if source.for_cpu:
        properties |= dict.fromkeys(GPU_FEATURES, False)
    binary = triton.compile(
        triton.compiler.ASTSource(kernel.fn, meta["signature"], meta["constants"], meta["configs"][0]),
        target=GPUTarget("xpu", properties, kernel.device_props.warp_size or 32),
        options={name: value for name, value in options.items() if name not in UNKNOWN_OPTIONS},
    )
    metadata, spirv = binary.metadata, binary.asm["spv"]
    return CompiledKernel(
        name=metadata.name,
        configuration=str(configuration),
        argument_types={name: kind for name, kind in meta["signature"].items() if kind != CONSTANT},
        work_items=metadata.num_warps * metadata.threads_per_warp,
        shared_memory=metadata.shared,
        build_flags=metadata.build_flags,
        spirv=spirv,
        program=_program(spirv) if source.for_cpu else b"",
        seconds=time.perf_counter() - start,
    )


def _program(spirv: bytes) -> bytes:
    """Build a program for Intel's OpenCL runtime for CPUs."""
    from xpu_amp_dynamo.simulator.opencl.device import build_program

    return build_program(for_cpu(spirv))
