"""Keeps zeros out of divisors of integers, among which are those of work items that a mask switches off.

before:  tmp2 = tmp0 % tmp1
after:   tmp2 = tmp0 % (tmp1 + (tmp1 == 0).to(tmp1.dtype) if tmp1.dtype.is_int() else tmp1)

A GPU gives some number for a division by zero. The OpenCL runtime for CPUs takes it for impossible, and with it that
the mask switches anything off: it stores what such work items computed (intel-opencl-rt 2026.2).
"""

from __future__ import annotations

import ast

from xpu_amp_dynamo.simulator.opencl.note_assertions import VALUE

# Inductor's own functions that divide by their second argument.
DIVIDING = ("div_floor_integer", "remainder_integer")


def guard_divisions(kernel: ast.FunctionDef) -> bool:
    """Divide integers that a kernel loaded, or computed, by one in place of zero; tell whether there are divisions.

    Args:
        kernel: the Triton function, edited in place.
    """
    guarding = _Guarding(_loaded(kernel))
    guarding.visit(kernel)
    return guarding.changed


def _loaded(kernel: ast.FunctionDef) -> set[str]:
    """List the variables of a user's kernel that hold what was loaded."""
    assignments = [node for node in ast.walk(kernel) if isinstance(node, ast.Assign)]
    loads = [node for node in assignments if ast.unparse(node.value).startswith("tl.load(")]
    return {target.id for node in loads for target in node.targets if isinstance(target, ast.Name)}


class _Guarding(ast.NodeTransformer):
    """Guards the divisors in a function."""

    def __init__(self, loaded: set[str]) -> None:
        self._loaded = loaded
        self.changed = False

    def visit_BinOp(self, node: ast.BinOp) -> ast.BinOp:
        self.generic_visit(node)
        if isinstance(node.op, (ast.Mod, ast.FloorDiv)):
            node.right = self._guarded(node.right)
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in DIVIDING:
            node.args[1] = self._guarded(node.args[1])
        return node

    def _guarded(self, divisor: ast.expr) -> ast.expr:
        names = [node.id for node in ast.walk(divisor) if isinstance(node, ast.Name)]
        if not any(VALUE.fullmatch(name) or name in self._loaded for name in names):
            return divisor
        self.changed = True
        text = f"({ast.unparse(divisor)})"
        guarded = f"{text} + ({text} == 0).to({text}.dtype) if {text}.dtype.is_int() else {text}"
        return ast.parse(guarded, mode="eval").body
