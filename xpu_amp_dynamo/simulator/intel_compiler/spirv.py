"""Edits SPIR-V modules, whose words the specification of SPIR-V describes (section 2.3, physical layout)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER_WORDS = 5
OP_EXTENSION, OP_EXECUTION_MODE, OP_CAPABILITY = 10, 16, 17
# What Triton for XPUs asks of a GPU's compiler and Intel's OpenCL runtime for CPUs does not know: the extension
# SPV_INTEL_kernel_attributes, of which none changes what a kernel computes.
GPU_CAPABILITIES = frozenset((5892,))  # KernelAttributesINTEL
GPU_EXTENSIONS = frozenset((b"SPV_INTEL_kernel_attributes",))
GPU_EXECUTION_MODES = frozenset((5893, 5894, 5895))  # MaxWorkgroupSizeINTEL, MaxWorkDimINTEL, NoGlobalOffsetINTEL


def for_cpu(module: bytes) -> bytes:
    """Return a module without those requests that only a GPU's compiler understands.

    Args:
        module: a SPIR-V binary in the byte order of this machine.
    """
    words = struct.unpack(f"<{len(module) // 4}I", module)
    kept = list(words[:HEADER_WORDS])
    for instruction in _instructions(words):
        if not _is_for_gpus(instruction):
            kept += instruction
    return struct.pack(f"<{len(kept)}I", *kept)


def _instructions(words: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the instructions of a module, each as its words."""
    position = HEADER_WORDS
    while position < len(words):
        count = words[position] >> 16
        yield words[position : position + count]
        position += count


def _is_for_gpus(instruction: tuple[int, ...]) -> bool:
    op = instruction[0] & 0xFFFF
    if op == OP_CAPABILITY:
        return instruction[1] in GPU_CAPABILITIES
    if op == OP_EXTENSION:
        name = struct.pack(f"<{len(instruction) - 1}I", *instruction[1:]).split(b"\0")[0]
        return name in GPU_EXTENSIONS
    return op == OP_EXECUTION_MODE and instruction[2] in GPU_EXECUTION_MODES
