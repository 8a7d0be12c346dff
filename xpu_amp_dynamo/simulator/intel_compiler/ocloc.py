"""Machine code of a kernel by ocloc, Intel's offline compiler of GPU drivers. Checked on ocloc 26.27."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xpu_amp_dynamo.errors import SimulatorError

# What ocloc calls the parts.
DEVICES = {"max-1550": "pvc", "arc-b580": "bmg", "arc-a770": "dg2"}
MESSAGE_LENGTH = 2000
# A line such as "(W)  mov (16|M0)  r3.0<1>:f  r1.0<1;1,0>:bf": predicate, op, lanes, operands; labels end in a colon.
INSTRUCTION = re.compile(r"^(?:\([^)]*\)\s*)?(?P<op>[a-z][\w.]*)\s*(?:\(\d+\|M\d+\))?(?P<operands>.*)$")
OPERAND_TYPE = re.compile(r":(bf8|hf8|tf32|bf|hf|f|df|ub|b|uw|w|ud|d|uq|q)\b")
FLOATING = {"bf8": "bf8", "hf8": "hf8", "bf": "bfloat16", "hf": "float16", "f": "float32", "df": "float64"}


@dataclass(frozen=True)
class MachineCode:
    """What a GPU would run for one kernel.

    Args:
        simd_width: lanes of a hardware thread.
        registers: general registers of a hardware thread, of 64 bytes on a Max, of 32 on an Arc A.
        spilled_bytes: bytes of a hardware thread that do not fit in its registers and go to memory.
        instructions: how many instructions there are.
        conversions: how many of them convert floating-point numbers, by ``"from -> to"``.
    """

    simd_width: int
    registers: int
    spilled_bytes: int
    instructions: int
    conversions: dict[str, int]


def find_ocloc() -> str | None:
    """Return the path of ocloc: what the variable ``OCLOC`` names, else what is on the path; None if there is none.

    Raises:
        SimulatorError: ``OCLOC`` names no program.
    """
    named = os.environ.get("OCLOC")
    if named is None:
        return shutil.which("ocloc")
    if shutil.which(named) is None:
        raise SimulatorError(f"the environment variable OCLOC names {named!r}, which is no program that can be run")
    return named


@functools.cache
def ocloc_version(ocloc: str) -> str:
    """Return what an ocloc says of its version."""
    return _run(ocloc, "--version").stdout.strip()


def machine_code(ocloc: str, spirv: bytes, part: str, build_flags: str = "") -> MachineCode | str:
    """Compile a kernel to machine code and return what there is to say of it, or what ocloc said if it refuses.

    Args:
        ocloc: path of ocloc.
        spirv: a module with one kernel.
        part: the GPU, see :func:`simulated_xpu`.
        build_flags: options of the device's compiler.
    """
    device = DEVICES[part]
    with tempfile.TemporaryDirectory(prefix="ocloc_") as name:
        folder = Path(name)
        module, binary, parts = folder / "kernel.spv", folder / "kernel.bin", folder / "parts"
        module.write_bytes(spirv)
        options = ("-options", build_flags) if build_flags.strip() else ()
        compiled = _run(ocloc, "compile", "-file", module, "-spirv_input", "-device", device, "-o", binary, *options)
        if compiled.returncode or not binary.exists():
            return (compiled.stdout + compiled.stderr)[-MESSAGE_LENGTH:].strip()
        parts.mkdir()
        taken_apart = _run(ocloc, "disasm", "-file", binary, "-device", device, "-dump", parts)
        if not (parts / ".ze_info").exists():
            return (taken_apart.stdout + taken_apart.stderr)[-MESSAGE_LENGTH:].strip()
        assembly = "\n".join(file.read_text() for file in sorted(parts.glob(".text.*.asm")))
        return read_machine_code((parts / ".ze_info").read_text(), assembly)


def _run(ocloc: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ocloc, *map(str, args)], capture_output=True, text=True)


def read_machine_code(info: str, assembly: str) -> MachineCode:
    """Read what ocloc says of a kernel.

    Args:
        info: the section ``.ze_info`` of its binary, which is YAML.
        assembly: its disassembled text.
    """
    instructions = list(_instructions(assembly))
    conversions = Counter(conversion for line in instructions for conversion in _conversion(line))
    return MachineCode(
        simd_width=_number(info, "simd_size"),
        registers=_number(info, "grf_count"),
        spilled_bytes=_number(info, "spill_size"),
        instructions=len(instructions),
        conversions=dict(conversions.most_common()),
    )


def _number(info: str, key: str) -> int:
    found = re.search(rf"\b{key}:\s+(\d+)", info)
    return int(found[1]) if found else 0


def _instructions(assembly: str) -> Iterator[re.Match[str]]:
    for line in assembly.splitlines():
        code = line.split("//")[0].strip()
        if code and not code.endswith(":") and (found := INSTRUCTION.match(code)):
            yield found


def _conversion(instruction: re.Match[str]) -> Iterator[str]:
    """Yield between which floating-point types an instruction moves a value, if it does that and nothing else."""
    types = OPERAND_TYPE.findall(instruction["operands"])
    if instruction["op"] == "mov" and len(types) == 2 and types[0] != types[1] and FLOATING.keys() >= set(types):
        yield f"{FLOATING[types[1]]} -> {FLOATING[types[0]]}"
