"""What the random programs of two kinds share: expressions, writes, and how a program is written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st

# Expressions of one or two square matrices that give a square matrix, so that any can follow any.
REARRANGED = (
    "{a}.t()",
    "{a}.reshape(2, 8).t().reshape(4, 4)",
    "{a}[0].expand(4, 4)",
    "torch.cat({a}.chunk(2, -1), -1)",
    "{a}.split(2)[0].repeat(2, 1)",
    "{a}.unbind()[1].expand(4, 4)",
    "{a}.flip(0)",
)
COPIES = (
    "{a}.detach()",
    "{a}.clone()",
    "{a}[:]",
)
ARITHMETIC = (
    "{a} + {b}",
    "{a} - 0.3 * {b}",
    "{a} * {b}",
    "{a} / ({b}.abs() + 1)",
    "torch.maximum({a}, {b})",
)
# Writes to a value ``v``.
SIMPLE_WRITES = (
    "{v}.add_({b})",
    "{v}.mul_(0.5)",
    "{v}.copy_({b})",
    "{v}.addmm_({b}, {c})",
    "{v}[0] = {b}[1]",
    "{v}[:, 1:3] = {b}[:, :2]",
)
OTHER_WRITES = (
    "{v}.t().sub_({b})",
    "{v}.relu_()",
    "F.relu({v}, inplace=True)",
)
INDENT = "    "
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Writer:
    """Writes one program from drawn numbers.

    Args:
        draw: draws from a strategy.
        inputs: names of the matrices that the program gets.
    """

    def __init__(self, draw: Draw, inputs: tuple[str, ...]) -> None:
        self.draw = draw
        self.inputs = inputs
        self.names = list(inputs)
        self.lines: list[str] = []

    @property
    def own(self) -> list[str]:
        """The names of values that the program has computed."""
        return self.names[len(self.inputs) :]

    def operand(self) -> str:
        """Choose a value, late ones as often as all early ones."""
        late = self.names[-4:] if self.draw(st.booleans()) else self.names
        return self.draw(st.sampled_from(late))

    def operands(self) -> dict[str, str]:
        """Choose values for the places of an expression."""
        return {key: self.operand() for key in "abc"}

    def assignment(self, expressions: tuple[str, ...], operands: dict[str, str]) -> str:
        """Return an assignment of an expression to a new name."""
        name = f"v{len(self.names)}"
        text = f"{name} = {self.draw(st.sampled_from(expressions)).format(**operands)}"
        self.names.append(name)
        return text

    def write(self, writes: tuple[str, ...], operands: dict[str, str]) -> str:
        """Return a write to a value that the program has computed."""
        return self.draw(st.sampled_from(writes)).format(v=self.draw(st.sampled_from(self.own)), **operands)


def function_of(source: str, **names: Any) -> Callable[..., Any]:
    """Return the function ``program`` of a source that may use ``torch``, ``F`` and these names."""
    namespace: dict[str, Any] = {"torch": torch, "F": F, **names}
    exec(compile(source, "<random program>", "exec"), namespace)
    return namespace["program"]
