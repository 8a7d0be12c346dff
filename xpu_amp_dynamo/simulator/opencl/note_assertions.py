"""Makes kernels note assertions that fail, where Intel's OpenCL runtime for CPUs would end the process.

before:  tl.device_assert((0 <= tmp4) & (tmp4 < 10), "index out of bounds: 0 <= tmp4 < 10")
after:   holds = (0 <= tmp4) & (tmp4 < 10)
         tl.store(failed_assertion + holds.to(tl.int32) * 0, 1, holds == 0)
         tmp4 = tl.where(holds, tmp4, 0)

Such a kernel goes on with another index, since its work items cannot end alone, and whoever launched it raises then.
"""

from __future__ import annotations

import ast
import re
from itertools import chain

ARGUMENT, TYPE = "failed_assertion", "*i32"
# What Inductor calls the values that a kernel computes.
VALUE = re.compile(r"tmp\d+")


def note_assertions(kernel: ast.FunctionDef) -> list[str]:
    """Have a kernel note assertions that fail and return what they say; it stores the number of the last one that
    failed, counted from one.

    A kernel that tells the types of its arguments otherwise than Inductor does is left as it is.

    Args:
        kernel: the Triton function, edited in place. If it has assertions, it takes one more argument then, the last:
            the address of an int32.
    """
    signature = _signature(kernel)
    if signature is None:
        return []
    noting = _Noting()
    noting.visit(kernel)
    if noting.messages:
        kernel.args.args.append(ast.arg(ARGUMENT))
        signature.keys.append(ast.Constant(ARGUMENT))
        signature.values.append(ast.Constant(TYPE))
    return noting.messages


def _signature(kernel: ast.FunctionDef) -> ast.Dict | None:
    """Return the dictionary that holds the types of a kernel's arguments, which its decorator is given."""
    for node in chain.from_iterable(map(ast.walk, kernel.decorator_list)):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "signature" and isinstance(value, ast.Dict):
                    return value
    return None


class _Noting(ast.NodeTransformer):
    """Replaces the assertions of a function."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | list[ast.stmt]:
        match node.value:
            case ast.Call(
                func=ast.Attribute(value=ast.Name("tl"), attr="device_assert"),
                args=[condition, ast.Constant(str(message))],
                keywords=[],
            ):
                self.messages.append(message)
                return self._note(condition)
        return node

    def _note(self, condition: ast.expr) -> list[ast.stmt]:
        lines = [
            f"holds = {ast.unparse(condition)}",
            f"tl.store({ARGUMENT} + holds.to(tl.int32) * 0, {len(self.messages)}, holds == 0)",
            *(f"{index} = tl.where(holds, {index}, 0)" for index in _indices(condition)),
        ]
        return [statement for line in lines for statement in ast.parse(line).body]


def _indices(condition: ast.expr) -> list[str]:
    """List the values of Inductor's that a condition compares."""
    compared = [node for node in ast.walk(condition) if isinstance(node, ast.Compare)]
    names = [node.id for compare in compared for node in ast.walk(compare) if isinstance(node, ast.Name)]
    return [name for name in dict.fromkeys(names) if VALUE.fullmatch(name)]
