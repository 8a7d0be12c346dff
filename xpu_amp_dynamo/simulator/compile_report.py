"""What Intel's compiler made of the kernels of a report."""

from __future__ import annotations

import ast
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from xpu_amp_dynamo.errors import SimulatorError
from xpu_amp_dynamo.simulator.intel_compiler import triton_xpu
from xpu_amp_dynamo.simulator.intel_compiler.compiled_kernel import CompiledKernel, FailedKernel, KernelSource
from xpu_amp_dynamo.simulator.intel_compiler.ocloc import MachineCode, find_ocloc, machine_code, ocloc_version
from xpu_amp_dynamo.simulator.intel_compiler.processes import compile_kernels
from xpu_amp_dynamo.simulator.parts import PARTS
from xpu_amp_dynamo.simulator.report_text import text_of, wide_console

OF_MACHINE_CODE = ("SIMD", "registers", "spilled", "instructions", "conversions")


@dataclass(frozen=True)
class KernelVerdict:
    """What became of one kernel with one configuration.

    Args:
        name: the kernel.
        configuration: block sizes and number of warps; empty if the compiler refused the kernel.
        seconds: how long compiling to SPIR-V took.
        machine_code: what a GPU would run; None if ocloc was not found or refused the kernel.
        error: what the compiler, or ocloc, said as it refused; empty if it took the kernel.
    """

    name: str
    configuration: str
    seconds: float
    machine_code: MachineCode | None
    error: str

    @property
    def spilled_bytes(self) -> int:
        """Bytes of a hardware thread that go to memory for want of registers."""
        return self.machine_code.spilled_bytes if self.machine_code else 0


@dataclass(frozen=True)
class CompileReport:
    """What Intel's compiler made of kernels: those that it refused first, then those that spill.

    Args:
        target: the part that they were compiled for.
        compilers: names and versions of the compilers.
        kernels: the kernels, each with all its configurations.
    """

    target: str
    compilers: tuple[str, ...]
    kernels: tuple[KernelVerdict, ...]

    @property
    def failed(self) -> list[KernelVerdict]:
        """The kernels that a compiler refused."""
        return [kernel for kernel in self.kernels if kernel.error]

    @property
    def spilling(self) -> list[KernelVerdict]:
        """The kernels that do not fit in the registers."""
        return [kernel for kernel in self.kernels if kernel.spilled_bytes]

    def __str__(self) -> str:
        """Return the report as a table of text."""
        return text_of(self)

    def print(self, console: Console | None = None) -> None:
        """Print the kernels as a table."""
        console = console or wide_console()
        table = Table(title=f"kernels for {self.target}, by {', '.join(self.compilers)}", caption=_summary(self))
        of_code = OF_MACHINE_CODE if any(kernel.machine_code for kernel in self.kernels) else ()
        for heading in ("kernel", "configuration", "verdict", *of_code):
            table.add_column(heading, overflow="fold")
        for kernel in self.kernels:
            table.add_row(kernel.name, *_cells(kernel))
        console.print(table)


def compile_report(generated: dict[str, str], target: str) -> CompileReport:
    """Compile every kernel of generated code with every configuration that autotuning would try.

    Args:
        generated: Inductor's code, by graph.
        target: the part to compile for, see :func:`simulated_xpu`.

    Raises:
        SimulatorError: there is no such part; Triton for XPUs is not installed or cannot be on this machine.
    """
    if target not in list(PARTS):
        raise SimulatorError(f"there is no part {target!r} to compile for; the parts are {sorted(PARTS)}")
    sources = list(dict.fromkeys(s for code in generated.values() for s in _sources(code, PARTS[target].architecture)))
    ocloc = find_ocloc()
    compilers = [f"Triton for XPUs {triton_xpu.VERSION}", *([f"ocloc {ocloc_version(ocloc)}"] if ocloc else [])]
    outcomes = compile_kernels(sources)
    compiled = [kernel for outcome in outcomes if not isinstance(outcome, FailedKernel) for kernel in outcome]
    failed = [o for o in outcomes if isinstance(o, FailedKernel)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        verdicts = list(threads.map(lambda kernel: _verdict(kernel, target, ocloc), compiled))
    verdicts += [KernelVerdict(failure.name, "", 0.0, None, failure.message) for failure in failed]
    verdicts.sort(key=lambda kernel: (not kernel.error, -kernel.spilled_bytes))
    return CompileReport(target, tuple(compilers), tuple(verdicts))


def _sources(code: str, architecture: int) -> list[KernelSource]:
    """Find the kernels in a module that Inductor wrote: ``async_compile.triton(name, code, ...)``."""
    calls = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    kernels = (
        (call.args[0], call.args[1])
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "triton" and len(call.args) >= 2
    )
    return [KernelSource(ast.literal_eval(name), ast.literal_eval(text), architecture) for name, text in kernels]


def _verdict(kernel: CompiledKernel, target: str, ocloc: str | None) -> KernelVerdict:
    made = machine_code(ocloc, kernel.spirv, target, kernel.build_flags) if ocloc else None
    error = made if isinstance(made, str) else ""
    return KernelVerdict(
        kernel.name, kernel.configuration, kernel.seconds, made if isinstance(made, MachineCode) else None, error
    )


def _cells(kernel: KernelVerdict) -> list[str]:
    """Return what is known of a kernel, without machine code if it has none."""
    verdict = f"refused: {kernel.error}" if kernel.error else "taken"
    code = kernel.machine_code
    if code is None:
        return [kernel.configuration, verdict]
    conversions = ", ".join(f"{count} {kind}" for kind, count in code.conversions.items())
    numbers = (code.simd_width, code.registers, code.spilled_bytes, code.instructions)
    return [kernel.configuration, verdict, *map(str, numbers), conversions]


def _summary(report: CompileReport) -> str:
    taken = len(report.kernels) - len(report.failed)
    text = f"{taken} of {len(report.kernels)} compiled, {len(report.spilling)} spill"
    without = "" if len(report.compilers) > 1 else "; no ocloc found, so to SPIR-V only"
    return text + without
