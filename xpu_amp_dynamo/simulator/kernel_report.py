"""What an XPU would run: the launches of compiled code in order, and their totals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

from xpu_amp_dynamo.lowering.records import dtype_name
from xpu_amp_dynamo.simulator.compile_report import CompileReport, compile_report
from xpu_amp_dynamo.simulator.report_text import text_of, wide_console
from xpu_amp_dynamo.simulator.xpu_ops import XpuSupport, xpu_support

OFF_DEVICE = (XpuSupport.HOST_FALLBACK, XpuSupport.NONE)
# How wide a console has to be for one line a launch.
FITS_A_LINE = 120
NO_WRAP = ("", "graph", "from", "reads", "writes")


@dataclass(frozen=True)
class KernelLaunch:
    """One launch of a Triton kernel, or one call of an op that Inductor leaves to ATen or oneDNN.

    Args:
        graph: which compiled graph it belongs to, such as ``"forward 0"``.
        name: the Triton kernel, or the op.
        is_triton: whether it is a Triton kernel.
        ops: the ATen ops that it computes.
        sources: lines of the user's code that these come from, as ``"file:line: code"``.
        bytes_read: bytes that it reads, by Inductor's account.
        bytes_written: bytes that it writes, by Inductor's account.
        input_dtypes: dtypes of the buffers that it reads.
        output_dtypes: dtypes of the buffers that it writes.
        only_casts: whether it does nothing but convert floating-point numbers from one dtype to another.
        origins: tags of the captured nodes that it computes, or whose gradients, where a lowering gave them tags.
    """

    graph: str
    name: str
    is_triton: bool
    ops: tuple[str, ...]
    sources: tuple[str, ...]
    bytes_read: int
    bytes_written: int
    input_dtypes: tuple[torch.dtype, ...]
    output_dtypes: tuple[torch.dtype, ...]
    only_casts: bool
    origins: tuple[str, ...] = ()

    @property
    def is_library_call(self) -> bool:
        """Whether it is no kernel that Inductor wrote, in Triton or C++."""
        return not self.is_triton and not self.name.startswith("cpp_")

    @property
    def support(self) -> XpuSupport:
        """How an XPU runs it, as far as files tell."""
        return XpuSupport.KERNEL if self.is_triton else xpu_support(self.name)


@dataclass
class KernelReport:
    """The launches of one model compiled one way, in launch order.

    Args:
        way: how it was compiled: ``"xpu_amp"``, ``"stock autocast"`` or ``"float32"``.
        launches: what runs, graph after graph.
        generated: the code that Inductor generated, by graph.
        beside: reports of the same model compiled in other ways, by way.
        part: the GPU that the code is for.
    """

    way: str
    launches: list[KernelLaunch] = field(default_factory=list)
    generated: dict[str, str] = field(default_factory=dict)
    beside: dict[str, KernelReport] = field(default_factory=dict)
    part: str = "max-1550"

    @property
    def triton_launches(self) -> int:
        """Launches of Triton kernels."""
        return sum(launch.is_triton for launch in self.launches)

    @property
    def extern_calls(self) -> int:
        """Calls of ops that are no Triton kernels."""
        return len(self.launches) - self.triton_launches

    @property
    def cast_launches(self) -> int:
        """Launches that do nothing but convert floating-point numbers from one dtype to another."""
        return sum(launch.only_casts for launch in self.launches)

    @property
    def host_fallbacks(self) -> list[KernelLaunch]:
        """Calls of ops that no XPU runs; the host does, with copies there and back, or nothing can."""
        return [launch for launch in self.launches if launch.support in OFF_DEVICE]

    @property
    def bytes_moved(self) -> int:
        """Bytes that all launches read and write."""
        return sum(launch.bytes_read + launch.bytes_written for launch in self.launches)

    def of_graphs(self, kind: str) -> KernelReport:
        """Return the part of the report about forward graphs or backward graphs.

        Args:
            kind: ``"forward"`` or ``"backward"``.
        """
        return KernelReport(
            self.way,
            [launch for launch in self.launches if launch.graph.startswith(kind)],
            {graph: code for graph, code in self.generated.items() if graph.startswith(kind)},
            part=self.part,
        )

    def compile(self, target: str | None = None) -> CompileReport:
        """Compile the Triton kernels with Intel's compiler, with every configuration that autotuning would time.

        Each goes through Triton for XPUs to SPIR-V, and through ocloc to machine code where that is found: on the
        path, or by the environment variable ``OCLOC``. What was compiled before is taken from the disk.

        Args:
            target: the GPU to compile for, see :func:`simulated_xpu`; that which the code is for if None.

        Returns:
            What became of each kernel, those first that a compiler refuses, then those that spill registers.

        Raises:
            SimulatorError: there is no such part; Triton for XPUs is not installed (``python -m xpu_amp_dynamo
                install-compiler`` does that) or cannot be on this machine.
        """
        return compile_report(self.generated, self.part if target is None else target)

    def write_sources(self, folder: str | Path) -> list[Path]:
        """Write the generated code into a folder, one Python file a graph, and return the files.

        Args:
            folder: is made if it does not exist; files of the same names are replaced.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for report in (self, *self.beside.values()):
            for graph, code in report.generated.items():
                path = folder / f"{report.way}_{graph}.py".replace(" ", "_")
                path.write_text(code)
                written.append(path)
        return written

    def __str__(self) -> str:
        """Return the report as tables of text."""
        return text_of(self)

    def print(self, console: Console | None = None) -> None:
        """Print the launches and the totals as tables.

        Args:
            console: where to; standard output as wide as the tables want to be if None.
        """
        console = console or wide_console()
        console.print(_launch_table(self) if console.width >= FITS_A_LINE else _narrow_launch_table(self))
        console.print(_totals_table([self, *self.beside.values()]))


def _launch_table(report: KernelReport) -> Table:
    """Tabulate launches in order."""
    table = Table(title=f"{report.way}: launches in order", caption="* only converts a dtype")
    for heading in ("", "graph", "kernel", "ops", "from", "reads", "writes", "dtypes"):
        source = heading == "from"
        overflow: Literal["ellipsis", "fold"] = "ellipsis" if source else "fold"
        table.add_column(heading, overflow=overflow, no_wrap=heading in NO_WRAP, max_width=60 if source else None)
    for number, launch in enumerate(report.launches):
        table.add_row(
            str(number),
            launch.graph,
            f"{launch.name}{_mark(launch)}",
            ", ".join(launch.ops),
            launch.sources[0] if launch.sources else "",
            readable_bytes(launch.bytes_read),
            readable_bytes(launch.bytes_written),
            f"{_dtype_names(launch.input_dtypes)} -> {_dtype_names(launch.output_dtypes)}",
        )
    return table


def _narrow_launch_table(report: KernelReport) -> Table:
    """Tabulate launches in order, several lines each."""
    table = Table("", "launch", "reads -> writes", show_lines=True, caption="* only converts a dtype")
    table.title = f"{report.way}: launches in order"
    for number, launch in enumerate(report.launches):
        lines = (f"{launch.graph}: {launch.name}{_mark(launch)}", ", ".join(launch.ops), *launch.sources[:1])
        reads = f"{readable_bytes(launch.bytes_read)} {_dtype_names(launch.input_dtypes)}"
        writes = f"{readable_bytes(launch.bytes_written)} {_dtype_names(launch.output_dtypes)}"
        table.add_row(str(number), "\n".join(lines), f"{reads}\n-> {writes}")
    return table


def _mark(launch: KernelLaunch) -> str:
    if launch.support in OFF_DEVICE:
        return f" ({launch.support.value})"
    return " *" if launch.only_casts else ""


def _totals_table(reports: list[KernelReport]) -> Table:
    """Tabulate the totals of reports side by side."""
    table = Table("", *(report.way for report in reports), title="totals")
    table.add_row("Triton kernels", *(str(report.triton_launches) for report in reports))
    table.add_row("of these only casts", *(str(report.cast_launches) for report in reports))
    table.add_row("extern calls", *(str(report.extern_calls) for report in reports))
    if any(report.host_fallbacks for report in reports):
        table.add_row("of these not on the XPU", *(str(len(report.host_fallbacks)) for report in reports))
    table.add_row("bytes moved", *(readable_bytes(report.bytes_moved) for report in reports))
    return table


def readable_bytes(count: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:.4g} kB" if count < 1_000_000 else f"{count / 1e6:.4g} MB"


def _dtype_names(dtypes: Iterable[torch.dtype]) -> str:
    """Return the names of dtypes, each once."""
    return ", ".join(dict.fromkeys(map(dtype_name, dtypes)))
