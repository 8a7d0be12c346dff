"""One call and one cast of a lowered graph, each with the reason why it is as it is."""

from __future__ import annotations

from dataclasses import dataclass

import sympy
import torch


@dataclass(frozen=True, kw_only=True)
class LoweredNode:
    """One call or one cast of a lowered graph.

    Args:
        tag: what knows it again in the graphs that are made of this one.
        name: its node in the lowered graph.
        reason: why it is as it is.
        module: qualified name of the module whose code it is, empty outside of modules.
        line: the line of the user's code, as ``"file:line: code"``.
    """

    tag: str
    name: str
    reason: str
    module: str
    line: str


@dataclass(frozen=True, kw_only=True)
class LoweredCast(LoweredNode):
    """One cast that a lowering put into a graph.

    Args:
        source: the node that it converts.
        from_dtype: the dtype that it reads.
        to_dtype: the dtype that it writes.
        elements: how many numbers it converts, an expression where sizes are dynamic.
        elements_now: how many they are in the call that was captured; 0 if that depends on data.
        of_weight: whether it converts a parameter, or a view of one.
        users: the nodes that read it.
    """

    source: str
    from_dtype: torch.dtype
    to_dtype: torch.dtype
    elements: sympy.Expr | int
    elements_now: int
    of_weight: bool
    users: tuple[str, ...]

    @property
    def bytes(self) -> sympy.Expr | int:
        """Bytes that it reads and writes if it is not fused with anything."""
        return self.elements * (self.from_dtype.itemsize + self.to_dtype.itemsize)

    @property
    def bytes_now(self) -> int:
        """The same in the call that was captured."""
        return self.elements_now * (self.from_dtype.itemsize + self.to_dtype.itemsize)

    def __str__(self) -> str:
        """Return the cast as a line."""
        dtypes = f"{dtype_name(self.from_dtype)} -> {dtype_name(self.to_dtype)}"
        return f"{self.name}: {self.source} {dtypes}, {self.bytes} bytes, for {', '.join(self.users)}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class LoweredCall(LoweredNode):
    """One call of a lowered graph, and why it runs in the dtypes in which it runs.

    Args:
        op: the op that it calls.
        rule: the rule that decided, such as ``"listed"``, ``"unchanged"`` or ``"captured"``, of which the reason tells.
        category: what the policy does with the op, such as ``"lower_precision"``; empty if it lists it nowhere.
        inside: the composite op that contains it, empty if it stands in the program.
        input_dtypes: dtypes of the tensors that it reads, in order.
        output_dtypes: dtypes of the tensors that it gives.
        captured_dtypes: those that the program was captured with.
        shape: the shape of its first result, with expressions for dynamic sizes.
        bytes_now: bytes of its results in the call that was captured, without those of sizes that depend on data.
        casts: names of the casts that it reads.
    """

    op: str
    rule: str
    category: str
    inside: str
    input_dtypes: tuple[torch.dtype, ...]
    output_dtypes: tuple[torch.dtype, ...]
    captured_dtypes: tuple[torch.dtype, ...]
    shape: tuple[sympy.Expr | int, ...]
    bytes_now: int
    casts: tuple[str, ...]

    def __str__(self) -> str:
        """Return the call as a line."""
        read, given = (", ".join(map(dtype_name, dtypes)) for dtypes in (self.input_dtypes, self.output_dtypes))
        where = " in ".join(filter(None, (self.line, self.module)))
        return f"{self.name}: {self.op}({read}) -> {given}: {self.reason} [{where}]"


def dtype_name(dtype: torch.dtype) -> str:
    """Return what a dtype is called, without the module."""
    return str(dtype).removeprefix("torch.")
