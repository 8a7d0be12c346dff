"""Runs the Triton kernels that Inductor generates for XPUs by Intel's OpenCL runtime, on the memory of their tensors.

Checked on torch 2.13.0.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.utils._triton
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.runtime.triton_heuristics import CachingAutotuner

from xpu_amp_dynamo.errors import SimulatorError
from xpu_amp_dynamo.simulator.intel_compiler.compiled_kernel import CompiledKernel, FailedKernel, KernelSource
from xpu_amp_dynamo.simulator.intel_compiler.processes import compile_kernels
from xpu_amp_dynamo.simulator.interpreter import name_constants
from xpu_amp_dynamo.simulator.opencl.code_for_cpu import code_for_cpu
from xpu_amp_dynamo.simulator.opencl.device import load_kernel, pyopencl, queue
from xpu_amp_dynamo.simulator.opencl.note_assertions import ARGUMENT

logger = logging.getLogger(__name__)

# What Triton calls the types of numbers that a launch passes, and how OpenCL takes them.
NUMBERS = {
    "i1": np.int8,
    "i8": np.int8,
    "i16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
    "u8": np.uint8,
    "u16": np.uint16,
    "u32": np.uint32,
    "u64": np.uint64,
    "fp32": np.float32,
    "fp64": np.float64,
}

# A kernel keeps its arguments from one call of OpenCL to the next.
_one_launch = threading.Lock()
# Where kernels note which of their assertions failed.
_failed_assertion = ctypes.c_int32(0)


def run_kernels_by_opencl(stack: contextlib.ExitStack) -> None:
    """Run kernels by OpenCL, until ``stack`` closes; those of one graph are compiled side by side."""
    kernels = _Kernels()
    wait, interpret = AsyncCompile.wait, CachingAutotuner.run

    def wait_for_all(compiler: AsyncCompile, scope: dict[str, Any]) -> None:
        wait(compiler, scope)
        kernels.prepare(value for value in scope.values() if isinstance(value, CachingAutotuner))

    def run(kernel: CachingAutotuner, *args: Any, **kwargs: Any) -> None:
        loaded = kernels.get(kernel)
        if loaded is None:
            interpret(kernel, *args, **kwargs)
        else:
            loaded.launch(kernel, args)

    # Triton for XPUs 3.3 has no tensor descriptors, which templates use where there are some.
    stack.enter_context(mock.patch.object(torch.utils._triton, "has_triton_tma_device", return_value=False))
    stack.enter_context(mock.patch.object(AsyncCompile, "wait", wait_for_all))
    stack.enter_context(mock.patch.object(CachingAutotuner, "run", run))


class _Kernels:
    """The kernels of this region, by their code; None are those that the runtime cannot build."""

    def __init__(self) -> None:
        self._loaded: dict[KernelSource, _Kernel | None] = {}
        self._by_kernel: WeakKeyDictionary[CachingAutotuner, _Kernel | None] = WeakKeyDictionary()

    def prepare(self, kernels: Iterable[CachingAutotuner]) -> None:
        """Compile kernels that are new, side by side, and load them."""
        sources = {kernel: _source(kernel) for kernel in kernels}
        new = {source: (kernel, said) for kernel, (source, said) in sources.items() if source not in self._loaded}
        for (source, (kernel, assertions)), outcome in zip(new.items(), compile_kernels(list(new)), strict=True):
            found = _compiled_otherwise(kernel, source) if isinstance(outcome, FailedKernel) else (0, outcome[0])
            self._loaded[source] = _Kernel(*found, assertions) if found else None
        for kernel, (source, _) in sources.items():
            self._by_kernel[kernel] = self._loaded[source]

    def get(self, kernel: CachingAutotuner) -> _Kernel | None:
        """Return a kernel, compiled now if it was not before."""
        if kernel not in self._by_kernel:
            self.prepare([kernel])
        return self._by_kernel[kernel]


def _source(kernel: CachingAutotuner) -> tuple[KernelSource, list[str]]:
    """Return a kernel as the compiler takes it, and what the assertions say that it notes."""
    function = kernel.fn.fn
    name = function.__name__
    code, assertions = code_for_cpu(Path(function.__code__.co_filename).read_text(), name)
    return KernelSource(name, code, configuration=0, for_cpu=True), assertions


def _compiled_otherwise(kernel: CachingAutotuner, source: KernelSource) -> tuple[int, CompiledKernel] | None:
    """Compile another configuration and return which, since the runtime's compiler ends on some (version 2026.2).

    Returns None where it ends on all, and only it.
    """
    for index in range(1, len(kernel.configs)):
        (outcome,) = compile_kernels([dataclasses.replace(source, configuration=index)])
        if not isinstance(outcome, FailedKernel):
            return index, outcome[0]
    (outcome,) = compile_kernels([dataclasses.replace(source, for_cpu=False)])
    if isinstance(outcome, FailedKernel):
        raise SimulatorError(f"Intel's compiler refuses the kernel {outcome.name}:\n{outcome.message}")
    logger.warning("Intel's runtime for CPUs cannot build the kernel %s, which Triton's interpreter runs", source.name)
    return None


class _Kernel:
    """A kernel that is loaded, and how to launch it."""

    def __init__(self, configuration: int, compiled: CompiledKernel, assertions: list[str]) -> None:
        self._name, self._configuration, self._assertions = compiled.name, configuration, assertions
        self._kernel = load_kernel(compiled.program, compiled.name)
        self._types, self._work_items = compiled.argument_types, compiled.work_items
        self._shared_memory = compiled.shared_memory
        unknown = [kind for kind in self._types.values() if kind not in NUMBERS and not kind.startswith("*")]
        if unknown:
            raise SimulatorError(
                f"the kernel {compiled.name} takes arguments of the types {unknown}, which cannot be passed here; "
                'use simulated_xpu(mode="run")'
            )

    def launch(self, kernel: CachingAutotuner, args: tuple[Any, ...]) -> None:
        """Run the kernel and wait until it has ended.

        Raises:
            AssertionError: an assertion of the kernel failed, such as an index that is out of bounds.
        """
        cl = pyopencl()
        name_constants(kernel)
        configuration = kernel.configs[self._configuration]
        args, grid = kernel._interpret_args_grid(args, configuration)
        if not all(grid):
            return
        names = [name for name in kernel.triton_meta["signature"] if name not in configuration.kwargs]
        passed = dict(zip(names, args, strict=True))
        values = [
            _memory(ctypes.addressof(_failed_assertion)) if name == ARGUMENT else _value(kind, passed[name])
            for name, kind in self._types.items()
        ]
        if self._shared_memory:
            values.append(cl.LocalMemory(self._shared_memory))
        x, *others = map(int, grid)
        size, group = (x * self._work_items, *others), (self._work_items, *(1 for _ in others))
        with _one_launch:
            self._kernel.set_args(*values)
            cl.enqueue_nd_range_kernel(queue(), self._kernel, size, group).wait()
            failed, _failed_assertion.value = _failed_assertion.value, 0
        if failed:
            raise AssertionError(f"{self._assertions[failed - 1]}, in the kernel {self._name}")


def _value(kind: str, arg: Any) -> Any:
    """Return an argument of a launch as OpenCL takes it: memory by its address, which is that of the tensor."""
    if not kind.startswith("*"):
        return NUMBERS[kind](arg)
    return _memory(arg.data_ptr())


def _memory(address: int) -> Any:
    """Return memory of the host as OpenCL takes it: all of it is the device's too, so that no size is asked for."""
    return pyopencl().SVM((ctypes.c_uint8 * 1).from_address(address))
