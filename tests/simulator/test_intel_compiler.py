"""Kernels through Intel's compiler: to SPIR-V by Triton for XPUs, to machine code by ocloc."""

from __future__ import annotations

import gc
import platform
import stat
import struct
import sys
from typing import Any, cast

import pytest
import torch

import xpu_amp_dynamo
from xpu_amp_dynamo.__main__ import main
from xpu_amp_dynamo.errors import SimulatorError
from xpu_amp_dynamo.simulator.compile_report import CompileReport, KernelVerdict
from xpu_amp_dynamo.simulator.device_library import cache_folder, make_folder
from xpu_amp_dynamo.simulator.intel_compiler import processes, triton_xpu
from xpu_amp_dynamo.simulator.intel_compiler.compiled_kernel import FailedKernel, KernelSource
from xpu_amp_dynamo.simulator.intel_compiler.ocloc import (
    DEVICES,
    MachineCode,
    find_ocloc,
    machine_code,
    read_machine_code,
)
from xpu_amp_dynamo.simulator.intel_compiler.spirv import for_cpu
from xpu_amp_dynamo.simulator.parts import PARTS

MACHINE_INFO = """
kernels:
  - name:            triton_poi_fused_relu_0
    execution_env:
      grf_count:       128
      simd_size:       32
      spill_size:      64
"""
# In the style of ocloc 26.27: a label, moves that convert and moves that do not, a send, a comment.
ASSEMBLY = """
L0:
(W)     mov (16|M0)              r127.0<1>:ud  0x0:ud
        send.ugm (32|M0)         r16      r11     null:0  0x0            0x08200B80           {A@1,$3} // wr:4+0
        mov (16|M0)              r15.0<1>:bf   r16.0<1;1,0>:f                   {$3.dst}
(f2.0)  mov (16|M16)             r20.0<1>:bf   r15.16<1;1,0>:f
        mov (16|M0)              r21.0<1>:f    r19.0<1;1,0>:hf
        add (16|M0)              r21.0<1>:f    r19.0<1;1,0>:f    r20.0<1;1,0>:bf   {Compacted,F@1}
// a comment: mov (16|M0) r1:bf r2:f
"""


@pytest.fixture
def compiler_is_installed():
    """Skip where Triton for XPUs is not installed; `make test-opencl` installs it."""
    if not triton_xpu.folder().is_dir():
        pytest.skip(f"Triton for XPUs is not installed: {triton_xpu.INSTALL_COMMAND}")


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def small_report(**arguments):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU())
    return xpu_amp_dynamo.xpu_kernels(model, torch.randn(2, 8), **arguments)


def words_of(*instructions):
    """Return a module of instructions, each an op and its words."""
    header = (0x07230203, 0x10400, 0, 10, 0)
    words = [word for op, *rest in instructions for word in ((len(rest) + 1) << 16 | op, *rest)]
    return struct.pack(f"<{5 + len(words)}I", *header, *words)


def test_a_module_for_the_cpu_asks_for_nothing_that_only_gpus_have():
    def extension(name):
        padded = name.encode().ljust(len(name) // 4 * 4 + 4, b"\0")
        return (10, *struct.unpack(f"<{len(padded) // 4}I", padded))

    kept = [(17, 6), extension("SPV_KHR_bit_instructions"), (16, 3, 17, 64, 1, 1), (59, 1, 5892, 5893)]
    dropped = [(17, 5892), extension("SPV_INTEL_kernel_attributes"), (16, 3, 5894, 1), (16, 3, 5893, 64, 1, 1)]
    mixed = [instruction for pair in zip(dropped, kept, strict=True) for instruction in pair]
    assert for_cpu(words_of(*mixed)) == words_of(*kept)
    assert for_cpu(words_of(*kept)) == words_of(*kept)


def test_machine_code_is_read():
    conversions = {"float32 -> bfloat16": 2, "float16 -> float32": 1}
    assert read_machine_code(MACHINE_INFO, ASSEMBLY) == MachineCode(32, 128, 64, 6, conversions)
    assert read_machine_code(MACHINE_INFO.replace("spill_size", "other_size"), "").spilled_bytes == 0
    assert DEVICES.keys() == PARTS.keys()


def test_what_ocloc_says_is_told(monkeypatch, tmp_path):
    refusing = tmp_path / "ocloc"
    refusing.write_text("#!/bin/sh\necho 'error: Double type is not supported on this platform.'\nexit 246\n")
    refusing.chmod(refusing.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("OCLOC", str(refusing))
    assert find_ocloc() == str(refusing)
    assert "Double type is not supported" in str(machine_code(str(refusing), b"", "arc-a770"))
    monkeypatch.setenv("OCLOC", str(tmp_path / "none"))
    with pytest.raises(SimulatorError, match="no program that can be run"):
        find_ocloc()


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(no_compiler, monkeypatch, capsys):
    report = small_report()
    with pytest.raises(SimulatorError, match="python -m xpu_amp_dynamo install-compiler"):
        report.compile()
    with pytest.raises(SimulatorError, match=r"no part 'max-9000'.*'arc-a770', 'arc-b580', 'max-1550'"):
        report.compile("max-9000")
    with pytest.raises(SimulatorError, match=r"no part \['max-1550'\]"):
        report.compile(cast(Any, ["max-1550"]))
    monkeypatch.setattr(triton_xpu, "install", lambda: "where it is")
    assert main(["install-compiler"]) == 0
    assert capsys.readouterr().out == "where it is\n"


def test_pip_s_words_are_told_where_it_cannot_install(no_compiler, monkeypatch):
    monkeypatch.setattr(triton_xpu, "VERSION", "0.0.0")
    with pytest.raises(SimulatorError, match=r"(?s)pip install.*triton-xpu==0\.0\.0.*failed"):
        triton_xpu.install()
    assert not triton_xpu.folder().exists()


@pytest.mark.parametrize(
    ("owner", "name", "value", "words"),
    [
        (platform, "machine", lambda: "aarch64", "Linux on x86-64 only, and this is linux on aarch64"),
        (sys, "platform", "darwin", "Linux on x86-64 only, and this is darwin"),
        (sys, "version_info", (3, 13, 1), "CPython 3.10 to 3.12 only, and this is CPython 3.13"),
        (platform, "python_implementation", lambda: "PyPy", "and this is PyPy"),
    ],
)
def test_other_machines_are_refused(owner, name, value, words, monkeypatch):
    monkeypatch.setattr(owner, name, value)
    with pytest.raises(SimulatorError, match=words):
        triton_xpu.refuse_elsewhere()


def test_a_compiler_that_ends_is_a_failure_of_the_kernel(no_compiler, monkeypatch, tmp_path):
    monkeypatch.setattr(triton_xpu, "installed_folder", lambda: tmp_path)
    monkeypatch.setattr(processes, "WORKER", "import os, sys\nprint('LLVM ERROR: no', file=sys.stderr)\nos.abort()\n")
    processes.end_workers()
    outcomes = processes.compile_kernels([KernelSource("first", "1"), KernelSource("other", "2")])
    processes.end_workers()
    for name, outcome in zip(("first", "other"), outcomes, strict=True):
        assert isinstance(outcome, FailedKernel)
        assert outcome.name == name
        assert "ended with -6:\nLLVM ERROR: no" in outcome.message


ANSWERS_ONCE = """
import pickle, sys
from xpu_amp_dynamo.simulator.intel_compiler.compiled_kernel import FailedKernel
source = pickle.load(sys.stdin.buffer)
pickle.dump(FailedKernel(source.name, "refused"), sys.stdout.buffer)
"""


def test_a_process_that_had_nothing_to_do_for_long_is_started_again(no_compiler, monkeypatch, tmp_path):
    monkeypatch.setattr(triton_xpu, "installed_folder", lambda: tmp_path)
    monkeypatch.setattr(processes, "WORKER", ANSWERS_ONCE)
    processes.end_workers()
    for name in ("first", "second", "third"):
        assert processes.compile_kernels([KernelSource(name, "1")]) == [FailedKernel(name, "refused")]
        worker = processes._idle.get()
        assert worker._process is not None
        worker._process.wait()
        processes._idle.put(worker)
        del worker
    processes.end_workers()
    gc.collect()


def test_a_damaged_file_is_compiled_anew(no_compiler, monkeypatch, tmp_path):
    monkeypatch.setattr(triton_xpu, "installed_folder", lambda: tmp_path)
    monkeypatch.setattr(processes, "WORKER", ANSWERS_ONCE.replace('FailedKernel(source.name, "refused")', '["made"]'))
    source, made = KernelSource("kernel", "1"), cast(Any, ["made"])
    for spoil in (lambda content: content[:-3], lambda content: content[:-1] + b"!", lambda content: b""):
        processes.end_workers()
        assert processes.compile_kernels([source]) == [made]
        assert processes._kept(source) == made
        file = processes._file(source)
        file.write_bytes(spoil(file.read_bytes()))
    processes.end_workers()
    assert processes.compile_kernels([source]) == [made]


def test_a_folder_that_cannot_be_made_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(SimulatorError, match=r"keeps what it compiles in .*file.*XDG_CACHE_HOME"):
        make_folder(cache_folder() / "kernels")


def test_refused_kernels_and_those_that_spill_come_first():
    code = MachineCode(32, 128, 0, 66, {"float32 -> bfloat16": 2})
    spilling = MachineCode(16, 128, 448, 1347, {})
    kernels = (
        KernelVerdict("refused", "XBLOCK: 1", 0.5, None, "Double type is not supported"),
        KernelVerdict("spills", "XBLOCK: 8", 0.5, spilling, ""),
        KernelVerdict("good", "XBLOCK: 256", 0.5, code, ""),
    )
    report = CompileReport("arc-a770", ("Triton for XPUs 3.3.0b1", "ocloc 26.27"), kernels)
    assert ([k.name for k in report.failed], [k.name for k in report.spilling]) == (["refused"], ["spills"])
    text = str(report)
    assert text.index("refused: Double") < text.index("448") < text.index("2 float32 -> bfloat16")
    assert "2 of 3 compiled, 1 spill" in text
    without = str(CompileReport("arc-a770", ("Triton for XPUs 3.3.0b1",), kernels[:1]))
    assert "refused: Double" in without
    assert "registers" not in without, "empty columns"


def test_kernels_of_a_model_compile(compiler_is_installed, monkeypatch):
    monkeypatch.delenv("OCLOC", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    report = small_report(train=True)
    compiled = report.compile()
    assert {kernel.name for kernel in compiled.kernels} == {k.name for k in report.launches if k.is_triton}
    assert compiled.failed == []
    assert "no ocloc found, so to SPIR-V only" in str(compiled)
    monkeypatch.setattr(processes, "_compiled", lambda sources: pytest.fail(f"compiled again: {sources}"))
    assert report.compile("max-1550") == compiled


def test_a_wrong_kernel_is_refused_and_comes_first(compiler_is_installed):
    report = small_report()
    graph, code = next(iter(report.generated.items()))
    report.generated["wrong"] = code.replace("tl.store(", "tl.no_such_function(")
    first, *others = report.compile().kernels
    assert "no_such_function" in first.error
    assert [kernel for kernel in others if not kernel.error], graph


@pytest.mark.parametrize("part", PARTS)
def test_machine_code_of_a_kernel(part, compiler_is_installed):
    if find_ocloc() is None:
        pytest.skip("ocloc is not installed")
    compiled = small_report(part=part).compile()
    assert compiled.failed == []
    assert len(compiled.compilers) == 2
    for kernel in compiled.kernels:
        assert kernel.machine_code.simd_width in (16, 32)
        assert kernel.machine_code.registers >= 128
        assert kernel.machine_code.instructions > 10
    assert any("float32 -> bfloat16" in kernel.machine_code.conversions for kernel in compiled.kernels)
