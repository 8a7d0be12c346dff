"""What becomes of a kernel's code before Intel's OpenCL runtime for CPUs runs it."""

from __future__ import annotations

import ast

from xpu_amp_dynamo.simulator.opencl.guard_divisions import guard_divisions
from xpu_amp_dynamo.simulator.opencl.note_assertions import note_assertions


def code_for_cpu(code: str, name: str) -> tuple[str, list[str]]:
    """Return a kernel that keeps to what the runtime can do, and what those of its assertions say that it notes.

    Args:
        code: the module of a kernel, as Inductor writes it.
        name: the name of the Triton function. It takes one more argument where it notes assertions, see
            :func:`note_assertions`.
    """
    module = ast.parse(code)
    kernel = next(node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name)
    messages, guarded = note_assertions(kernel), guard_divisions(kernel)
    return (ast.unparse(ast.fix_missing_locations(module)) if messages or guarded else code), messages
