"""Random programs as Python source: ops of every list and around them, regions, views, writes, mixed dtypes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from tests.programs.random_statements import (
    ARITHMETIC,
    COPIES,
    INDENT,
    OTHER_WRITES,
    REARRANGED,
    SIMPLE_WRITES,
    Draw,
    Writer,
    function_of,
)

# Expressions of one, two or three square matrices that give a square matrix, so that any can follow any.
SIDE = 4
EXPRESSIONS = (
    # lower precision
    "{a} @ {b}",
    "torch.mm({a}, {b})",
    "torch.bmm({a}[None], {b}[None])[0]",
    "torch.addmm({a}, {b}, {c})",
    "torch.addmm({a}, {b}, {c}, beta=0.5)",
    "torch.baddbmm({a}[None], {b}[None], {c}[None])[0]",
    "torch.addbmm({a}, {b}[None], {c}[None])",
    "F.linear({a}, {b})",
    "F.linear({a}, {b}, {c}[0])",
    "F.conv1d({a}[None], {b}[:, :, None])[0]",
    "F.conv2d({a}[None, None], {b}[:3, :3][None, None], padding=1)[0, 0]",
    "F.conv3d({a}[None, None, None], {b}[:1, :1][None, None, None], {c}[0, :1])[0, 0, 0]",
    "F.conv_transpose2d({a}[None, None], {b}[:3, :3][None, None], padding=1)[0, 0]",
    "F.scaled_dot_product_attention({a}[None, None], {b}[None, None], {c}[None, None])[0, 0]",
    "torch.mv({a}, {b}[0]).expand(4, 4)",
    "torch.einsum('ij,jk->ki', {a}, {b})",
    "torch.linalg.multi_dot([{a}, {b}, {c}])",
    "F.prelu({a}, {b}[0])",
    # float32
    "torch.log_softmax({a}, -1)",
    "F.cross_entropy({a}, target, reduction='none')[:, None] * {b}",
    "F.nll_loss({a}, target).expand(4, 4)",
    "torch.fft.fft({a}).real",
    "torch.fft.irfft(torch.fft.rfft({a}))",
    # promotion
    "torch.cat([{a}, {b}])[2:6]",
    "torch.stack([{a}, {b}]).sum(0)",
    "torch.stack([{a}, {b}, {c}], -1)[..., 1]",
    "torch.hstack([{a}, {b}])[:, 3:7]",
    "torch.cat([{a}[:2], {b}[2:]])",
    "torch.index_add({a}, 0, target, {b})",
    "torch.scatter_add({a}, 0, target[None], {b}[:1])",
    "torch.tensordot({a}, {b}, 1)",
    "torch.lerp({a}, {b}, 0.3)",
    "F.layer_norm({a}, (4,), {b}[0], {c}[1])",
    # no list
    *ARITHMETIC,
    "torch.where({a} > 0, {b}, {c})",
    "torch.softmax({a}, -1)",
    "F.layer_norm({a}, (4,))",
    "F.group_norm({a}[None], 2)[0]",
    "F.gelu({a})",
    "torch.tanh({a})",
    "torch.sigmoid({a}) * {a}",
    "{a}.sum(0, keepdim=True) + {b}",
    "{a}.mean() * {b}",
    "{a}.clamp(-1, 1)",
    "F.normalize({a})",
    "{a}.cumsum(0)",
    "F.dropout({a}, 0.5, training=False)",
    # layout
    *REARRANGED,
    "{a}.contiguous()",
    *COPIES,
    "{a}.view(4, 4)",
    "{a}.diagonal().expand(4, 4)",
    # dtypes
    "{a}.to(torch.bfloat16)",
    "{a}.half()",
    "{a}.float()",
    "{a}.to({b}.dtype)",
    "{a}.type_as({b})",
    "{a}.double().sin().float()",
    "{a}.argmax(-1).expand(4, 4) * {b}",
    "torch.ones_like({a}) + {b}",
    "torch.full((4, 4), 0.3) @ {a}",
    "{a}.new_ones(4, 4) @ {b}",
    # results of a caller's own
    "torch.mm({a}, {b}, out=torch.empty(4, 4))",
    "torch.add({a}, {b}, out=torch.empty(4, 4))",
    "torch.cat([{a}, {b}], out=torch.empty(8, 4))[:4]",
)
WRITES = (
    *SIMPLE_WRITES,
    *OTHER_WRITES,
    "{v}.masked_fill_({b} > 0, 0.25)",
    "{v}.index_add_(0, target, {b})",
    "{v} += {b} @ {c}",
)
BLOCKS = (
    'with torch.autocast("cpu", torch.bfloat16):',
    'with torch.autocast("cpu", torch.float16):',
    'with torch.autocast("cpu", enabled=False):',
    'with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):',
    "with torch.no_grad():",
)
INPUTS = ("x", "y", "low", "w", "u")


@dataclass(frozen=True)
class RandomProgram:
    """The source of a function of ``INPUTS`` and ``target``, and the dtype of the region around its call."""

    source: str
    around: torch.dtype | None

    def __str__(self) -> str:
        return f"# around: {self.around}\n{self.source}"

    @property
    def has_regions(self) -> bool:
        """Whether the source opens regions of its own."""
        return "autocast" in self.source

    def function(self) -> Callable[..., Any]:
        """Return the function."""
        return function_of(self.source)


def inputs() -> tuple[torch.Tensor, ...]:
    """Return the inputs: float32 and bfloat16 matrices, two weights with gradients, and indices."""
    generator = torch.Generator().manual_seed(0)
    x, y, low, w, u = (torch.randn(SIDE, SIDE, generator=generator) for _ in INPUTS)
    return x, y, low.bfloat16(), w.requires_grad_(), u.requires_grad_(), torch.tensor([1, 3, 0, 2])


class _BlockWriter(Writer):
    """Writes statements and blocks of them, which may be regions."""

    def statement(self, indent: str) -> None:
        """Write one assignment or one write."""
        operands = self.operands()
        is_write = self.own and self.draw(st.integers(0, 7)) == 0
        text = self.write(WRITES, operands) if is_write else self.assignment(EXPRESSIONS, operands)
        self.lines.append(indent + text)

    def block(self, indent: str, depth: int) -> None:
        """Write statements and blocks of them."""
        for _ in range(self.draw(st.integers(1, 5))):
            if depth and self.draw(st.integers(0, 3)) == 0:
                self.lines.append(indent + self.draw(st.sampled_from(BLOCKS)))
                self.block(indent + INDENT, depth - 1)
            else:
                self.statement(indent)


@st.composite
def programs(draw: Draw) -> RandomProgram:
    """Draw a program of up to some thirty statements."""
    writer = _BlockWriter(draw, INPUTS)
    writer.block(INDENT, depth=2)
    results = ", ".join(writer.names[-5:])
    head = f"def program({', '.join(INPUTS)}, target):"
    source = "\n".join([head, *writer.lines, f"{INDENT}return {results},", ""])
    return RandomProgram(source, draw(st.sampled_from([torch.bfloat16, torch.float16, None])))
