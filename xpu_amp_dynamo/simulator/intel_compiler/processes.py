"""Compiles many kernels at once, each in a process of Triton for XPUs, and keeps what comes back on disk."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import pickle
import queue
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import torch
from rich.console import Console
from rich.progress import track

from xpu_amp_dynamo.simulator.device_library import cache_folder, make_folder
from xpu_amp_dynamo.simulator.intel_compiler import triton_xpu
from xpu_amp_dynamo.simulator.intel_compiler.compiled_kernel import CompiledKernel, FailedKernel, KernelSource

Outcome = list[CompiledKernel] | FailedKernel
# Triton comes first: loaded behind torch 2.15, its library crashes.
WORKER = "import triton; from xpu_amp_dynamo.simulator.intel_compiler.worker import main; main()"
MOST_PROCESSES = 8
# So few kernels are compiled in seconds.
SILENT = 4
LAST_CHARACTERS = 2000
CHECKSUM_BYTES = 32


def compile_kernels(sources: Sequence[KernelSource]) -> list[Outcome]:
    """Compile kernels, or take them from the disk, and return what became of each.

    How far it is, is shown on the error stream. A kernel is kept in the folder that the device library uses, and found
    there by its code, the compiler and, if it was built for one, the processor.

    Raises:
        SimulatorError: Triton for XPUs is not installed, or cannot be on this machine.
    """
    triton_xpu.refuse_elsewhere()
    outcomes: dict[KernelSource, Outcome] = {}
    missing = []
    for source in dict.fromkeys(sources):
        kept = _kept(source)
        if kept is None:
            missing.append(source)
        else:
            outcomes[source] = kept
    if missing:
        triton_xpu.installed_folder()
        outcomes.update(zip(missing, _compiled(missing), strict=True))
    return [outcomes[source] for source in sources]


def _compiled(sources: list[KernelSource]) -> list[Outcome]:
    """Compile kernels in as many processes as there are cores, and keep what was made."""
    count = min(os.cpu_count() or 1, MOST_PROCESSES, len(sources))
    console = Console(stderr=True)
    with ThreadPoolExecutor(count) as threads:
        outcomes = threads.map(_compile, sources)
        silent = len(sources) <= SILENT
        description = "Compiling kernels for XPUs"
        return list(track(outcomes, description, len(sources), console=console, transient=True, disable=silent))


def _compile(source: KernelSource) -> Outcome:
    """Compile one kernel in a process that has nothing to do."""
    try:
        worker = _idle.get_nowait()
    except queue.Empty:
        worker = _Worker()
    try:
        outcome = worker.compile(source)
    finally:
        _idle.put(worker)
    if not isinstance(outcome, FailedKernel):
        _keep(source, outcome)
    return outcome


# Processes that are started and have nothing to do. They end by themselves after a while, and with this process.
_idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()


@atexit.register
def end_workers() -> None:
    """End the processes that have nothing to do."""
    with contextlib.suppress(queue.Empty):
        while True:
            _idle.get_nowait().end()


class _Worker:
    """A process that compiles, started when it is first needed and again when it has ended."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="xpu_kernels_")
        self._log = Path(self._folder.name) / "errors"
        self._process: subprocess.Popen[bytes] | None = None

    def compile(self, source: KernelSource) -> Outcome:
        """Compile one kernel; a compiler that crashes is a failure of that kernel."""
        outcome = self._ask(source)
        # It ended by itself, since it had nothing to do, in the moment that this was sent.
        return self._failure(source, self._ask(source) if outcome == 0 else outcome)

    def end(self) -> None:
        """End the process and remove its files."""
        if self._process is not None:
            self._process.kill()
            _end(self._process)
        self._folder.cleanup()

    def _failure(self, source: KernelSource, outcome: Outcome | int) -> Outcome:
        if not isinstance(outcome, int):
            return outcome
        said = self._log.read_text(errors="replace")[-LAST_CHARACTERS:]
        return FailedKernel(source.name, f"the compiler's process ended with {outcome}:\n{said}")

    def _ask(self, source: KernelSource) -> Outcome | int:
        """Return the answer of the process, or its exit status if there is none."""
        process = self._running()
        try:
            pickle.dump(source, _stream(process.stdin))
            _stream(process.stdin).flush()
            return pickle.load(_stream(process.stdout))
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            return _end(process)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            _end(self._process)
            self._process = None
        self._process = self._process or self._start()
        return self._process

    def _start(self) -> subprocess.Popen[bytes]:
        path = [str(triton_xpu.installed_folder()), *sys.path]
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment |= {
            "PYTHONPATH": os.pathsep.join(path),
            "TRITON_CACHE_DIR": str(Path(self._folder.name) / "triton"),
            "KERNEL_SOURCES": self._folder.name,
            "OMP_NUM_THREADS": "1",
        }
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-c", WORKER],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )


def _end(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process to end, close its streams and return its status."""
    status = process.wait()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):  # what was written and not read
            _stream(stream).close()
    return status


def _stream(stream: IO[bytes] | None) -> Any:
    assert stream is not None
    return stream


def _kept(source: KernelSource) -> list[CompiledKernel] | None:
    """Return a kernel that was compiled before, unless its file was damaged since."""
    file = _file(source)
    if not file.exists():
        return None
    content = file.read_bytes()
    checksum, compiled = content[:CHECKSUM_BYTES], content[CHECKSUM_BYTES:]
    return pickle.loads(compiled) if checksum == _checksum(compiled) else None


def _keep(source: KernelSource, outcome: list[CompiledKernel]) -> None:
    """Write what became of a kernel, in one step: others may read and write beside this process."""
    file = _file(source)
    make_folder(file.parent)
    compiled = pickle.dumps(outcome)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as partial:
        partial.write(_checksum(compiled) + compiled)
    os.replace(partial.name, file)


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _file(source: KernelSource) -> Path:
    depends_on = [repr(source), triton_xpu.VERSION, torch.__version__, _own_code()]
    if source.for_cpu:
        from xpu_amp_dynamo.simulator.opencl.device import device_key

        depends_on.append(device_key())
    key = hashlib.sha256("\n".join(depends_on).encode()).hexdigest()
    return cache_folder() / "kernels" / key[:2] / f"{key}.pickle"


@functools.cache
def _own_code() -> str:
    """Return the code of the modules that make a compiled kernel, of which what was kept must be."""
    return "".join(file.read_text() for file in sorted(Path(__file__).parent.glob("*.py")))
