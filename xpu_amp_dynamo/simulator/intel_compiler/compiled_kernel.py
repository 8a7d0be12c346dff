"""What goes to a process that compiles and what comes back. Data only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KernelSource:
    """One kernel that Inductor wrote for an XPU.

    Args:
        name: the name of the Triton function.
        code: the Python module that holds it.
        architecture: number of the architecture to compile for, that for which the code was written if None.
        configuration: which of the configurations that autotuning would time to compile it with, each if None.
        for_cpu: whether to build a program for Intel's OpenCL runtime for CPUs too.
    """

    name: str
    code: str
    architecture: int | None = None
    configuration: int | None = None
    for_cpu: bool = False


@dataclass(frozen=True)
class CompiledKernel:
    """One kernel, compiled with one configuration.

    Args:
        name: the name of the entry point.
        configuration: block sizes and number of warps, as Triton prints them.
        argument_types: Triton's names of the types of the arguments that a launch passes, by their names in order;
            arguments that have become part of the code are left out.
        work_items: how many there are in a work group.
        shared_memory: bytes of local memory that a work group takes.
        build_flags: what Triton passes to the compiler of the device.
        spirv: the module.
        program: what Intel's OpenCL runtime for CPUs made of it, empty if that was not asked for.
        seconds: how long compiling took.
    """

    name: str
    configuration: str
    argument_types: dict[str, str]
    work_items: int
    shared_memory: int
    build_flags: str
    spirv: bytes
    program: bytes
    seconds: float


@dataclass(frozen=True)
class FailedKernel:
    """One kernel that the compiler refused.

    Args:
        name: the name of the kernel.
        message: what the compiler said.
    """

    name: str
    message: str
